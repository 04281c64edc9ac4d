"""A line in the log for each request."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.request_info import HEALTH, info_of

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

logger = logging.getLogger("bentoml.access")


class AccessLogMiddleware:
    """ASGI middleware: logs each request once it is over, except health checks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log a request when it is over."""
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["path"] not in HEALTH:
                info = info_of(scope)
                # The endpoint, not the path, and only known methods: text from clients does not belong in a log.
                logger.info(
                    "%s %s %d, %d bytes in, %.1f ms, request %s",
                    scope["method"] if scope["method"] in METHODS else "?", info.endpoint, info.status, info.body_bytes,
                    info.seconds * 1000, info.id,
                )  # fmt: skip
