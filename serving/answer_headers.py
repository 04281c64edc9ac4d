"""Headers that every answer has."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.request_info import info_of

SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class AnswerHeadersMiddleware:
    """ASGI middleware: adds the request's id, security headers, and the headers in `RequestInfo.headers`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the start of an answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                info = info_of(scope)
                MutableHeaders(scope=message).update({"X-Request-ID": info.id} | SECURITY_HEADERS | info.headers)
            await send(message)

        await self.app(scope, receive, send_with_headers)
