"""Limits how many requests a worker holds at a time."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.refusals import Refusal
from serving.request_info import HEALTH


class RequestLimitMiddleware:
    """ASGI middleware: refuses a request with 429 while the worker holds `max_requests` others."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self.app, self.max_requests = app, max_requests
        self.held_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it; health checks always get in."""
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await self.app(scope, receive, send)
            return
        if self.held_requests >= self.max_requests:
            refusal = Refusal(429, "too_many_requests", "The service has too many requests: try again in a moment.")
            await refusal.response()(scope, receive, send)
            return
        self.held_requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.held_requests -= 1
