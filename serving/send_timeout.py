"""A client that does not read its answer must not block a place for ever."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.request_info import info_of

logger = logging.getLogger("bentoml.access")


class _NotRead(Exception):
    """The client did not take a part of its answer in time."""


class SendTimeoutMiddleware:
    """ASGI middleware: drops a client that does not take its answer; the server then closes the connection.

    Args:
        seconds: time for the client to take each part of its answer.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Limit the time for each part of an answer; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self.seconds):
                    await send(message)
            except TimeoutError:
                raise _NotRead from None

        try:
            await self.app(scope, receive, send_in_time)
        except _NotRead:
            logger.warning("the client does not read its answer, request %s", info_of(scope).id)
