"""How the service says no: a status, a code for programs, and a sentence for people."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import REFUSALS
from serving.request_info import info_of


class Refusal(Exception):
    """A request, or one image of it, that the service does not answer.

    Attributes:
        status: the HTTP status, from 400 to 499.
        code: the reason in one word, always the same for the same reason.
        message: the reason as a sentence, with what to do about it.
        index, filename: the image that the refusal is about; None where it is about the whole request.
    """

    def __init__(
        self, status: int, code: str, message: str, *, index: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.index, self.filename = index, filename

    def document(self) -> dict[str, Any]:
        """The refusal as a dictionary for JSON; each call counts it in the metrics."""
        REFUSALS.labels(self.code).inc()
        about = {} if self.index is None else {"index": self.index, "filename": self.filename}
        return {"error": self.message, "code": self.code} | about

    def response(self) -> JSONResponse:
        """The whole answer; a 429 also says when to try again."""
        headers = {"Retry-After": "1"} if self.status == 429 else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.document(), self.status, headers)


class JsonRefusalsMiddleware:
    """ASGI middleware: turns each refusal (a status from 400 to 499) of a library into JSON like our own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold back the text of a refusal and send JSON in its place."""
        refusal: Refusal | None = None  # sent in place of the text

        async def send_json(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start":
                headers, status = Headers(scope=message), message["status"]
                if 400 <= status < 500 and not headers.get("content-type", "").startswith("application/json"):
                    refusal = _as_json(status, headers)
                    if allow := headers.get("allow"):  # RFC 9110, 15.5.6: a 405 names the right methods
                        info_of(scope).headers["Allow"] = allow
            if refusal is None:
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await refusal.response()(scope, receive, send)

        await self.app(scope, receive, send_json)


def _as_json(status: int, headers: Headers) -> Refusal:
    if status == 404:
        return Refusal(404, "not_found", "There is nothing at this address; /docs describes the API.")
    if status == 405:
        return Refusal(405, "wrong_method", f"This address answers {headers.get('allow', 'another method')} only.")
    return Refusal(status, "refused", "The request was refused.")
