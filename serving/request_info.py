"""The facts about one request that several middlewares need.

They travel in `scope["state"]["info"]`, ASGI's place for such things: `RequestInfoMiddleware` puts a `RequestInfo`
there before any other middleware runs, and `info_of` finds it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""The addresses that monitoring asks. They are never refused and not logged."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class RequestInfo:
    """One request and what became of it so far.

    Attributes:
        id: what the client sent in `X-Request-ID` if that is a short plain word, else a new random one.
        endpoint: the request's name in metrics and log.
        started: when it came in, in seconds of `time.perf_counter()`.
        status: of the answer; 0 until an answer starts.
        body_bytes: how many bytes of the body the service holds in memory.
        headers: further headers that the answer must have.
    """

    id: str
    endpoint: str
    started: float
    status: int = 0
    body_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time since the request came in."""
        return time.perf_counter() - self.started


class RequestInfoMiddleware:
    """ASGI middleware: collects the facts about a request.

    Args:
        endpoints: the paths that have a name of their own. All others share one, so that strangers who ask for many
            paths do not fill the memory with time series.
    """

    def __init__(self, app: ASGIApp, endpoints: Collection[str]) -> None:
        self.app, self.endpoints = app, frozenset(endpoints) | HEALTH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Collect the facts about a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, wish = scope["path"], Headers(scope=scope).get("x-request-id", "")
        endpoint = path if path in self.endpoints else "/ui" if path.startswith("/ui/") else "other"
        request_id = wish if REQUEST_ID.fullmatch(wish) else uuid.uuid4().hex
        info = RequestInfo(request_id, endpoint, time.perf_counter())
        scope.setdefault("state", {})["info"] = info

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
            await send(message)

        await self.app(scope, receive, send_noting_status)


def info_of(scope: Scope) -> RequestInfo:
    """The facts about an HTTP request, for reading and for adding to them."""
    info: RequestInfo = scope["state"]["info"]
    return info
