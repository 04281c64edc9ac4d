"""Who may ask: everybody who knows the token. Starlette's `AuthenticationMiddleware` calls what is here."""

from __future__ import annotations

import hmac

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import Response

from serving.refusals import Refusal
from serving.request_info import HEALTH


class TokenCheck(AuthenticationBackend):
    """Lets requests with the header `Authorization: Bearer TOKEN` pass, and health checks."""

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
        return None  # there are no users to tell apart


def refuse(conn: HTTPConnection, error: AuthenticationError) -> Response:
    """The answer to a request without the right token."""
    return Refusal(
        401, "unauthorized", "Send the header `Authorization: Bearer TOKEN` with the right token."
    ).response()
