"""The check of the token, for Starlette's `AuthenticationMiddleware`."""

from __future__ import annotations

import hmac

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import Response

from serving.refusals import Refusal
from serving.request_info import HEALTH


class TokenCheck(AuthenticationBackend):
    """Lets requests pass that have the header `Authorization: Bearer TOKEN`, and health checks."""

    def __init__(self, token: str) -> None:
        self.expected = f"Bearer {token}".encode()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Check one request.

        Raises:
            AuthenticationError: the token is missing or wrong.
        """
        sent = conn.headers.get("authorization", "").encode()
        if conn.scope["path"] not in HEALTH and not hmac.compare_digest(sent, self.expected):
            raise AuthenticationError
        return None  # the token belongs to nobody in particular


def refuse(conn: HTTPConnection, error: AuthenticationError) -> Response:
    """The answer to a request without the right token."""
    message = "Send the header `Authorization: Bearer TOKEN` with the right token."
    return Refusal(401, "unauthorized", message).response()
