"""Reads the whole body of a request, within limits of size and time, before the service sees the request."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.refusals import Refusal
from serving.request_info import HEALTH, RequestInfo, info_of

DRAIN_FACTOR = 4
"""A body over the limit is read on, up to this many times the limit, and dropped: a client that is still sending would
not see the answer."""


class RequestBodyMiddleware:
    """ASGI middleware: reads the body and passes it on in one piece, or refuses it.

    Args:
        max_bytes: size of one body.
        max_held_bytes: size of all bodies in the memory of this worker together.
        seconds: time for the client to send its body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_held_bytes: float, seconds: float) -> None:
        self.app, self.max_bytes, self.max_held_bytes, self.seconds = app, max_bytes, max_held_bytes, seconds
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of a request; anything but HTTP and health checks pass untouched."""
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await self.app(scope, receive, send)
            return
        info = info_of(scope)
        try:
            chunks = await self._read(Headers(scope=scope), receive, info)
            await self.app(scope, _replay(chunks, receive), send)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
        finally:
            self.held_bytes -= info.body_bytes

    async def _read(self, headers: Headers, receive: Receive, info: RequestInfo) -> list[bytes]:
        """The body in pieces.

        Raises:
            Refusal: it is too large, too slow or cut off, or has a format of BentoML's own, which could run code.
        """
        if headers.get("content-type", "").startswith("application/vnd.bentoml"):
            raise Refusal(415, "unsupported_content_type", "This service does not read BentoML's own formats.")
        too_large = Refusal(413, "body_too_large", f"A request may have {self.max_bytes / 1e6:g} MB at most.")
        drain_bytes = DRAIN_FACTOR * self.max_bytes
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > drain_bytes:
            info.headers["Connection"] = "close"
            raise too_large
        chunks: list[bytes] = []
        received, more = 0, True
        try:
            async with asyncio.timeout(self.seconds):
                while more and received <= drain_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "cut_off", "The request ended before its body did.")
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    received += len(chunk)
                    if received <= self.max_bytes:
                        self._hold(chunk, info)
                        chunks.append(chunk)
        except TimeoutError:
            info.headers["Connection"] = "close"
            raise Refusal(408, "too_slow", f"The body did not arrive within {self.seconds:g} seconds.") from None
        if received > drain_bytes:
            info.headers["Connection"] = "close"
        if received > self.max_bytes:
            raise too_large
        return chunks

    def _hold(self, chunk: bytes, info: RequestInfo) -> None:
        if self.held_bytes + len(chunk) > self.max_held_bytes:
            raise Refusal(429, "too_many_bytes", "The service is reading as much as it can: try again in a moment.")
        info.body_bytes += len(chunk)
        self.held_bytes += len(chunk)


def _replay(chunks: list[bytes], receive: Receive) -> Receive:
    """A `receive` that first returns the whole body at once and empties `chunks`, and then does what `receive` does."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed, body = True, b"".join(chunks)
        chunks.clear()
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
