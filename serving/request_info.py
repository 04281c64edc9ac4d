"""The facts about one request that several middlewares need.

They travel in `scope["state"]["info"]`. `RequestInfoMiddleware` runs first and puts a `RequestInfo` there; `info_of`
gets it.
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
"""The addresses for monitoring. Requests to them are never refused and not logged."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class RequestInfo:
    """One request and what became of it so far.

    Attributes:
        id: the client's own from `X-Request-ID` if that is a short plain word, else a random one.
        endpoint: its name in metrics and log.
        started: when it came in, in seconds of `time.perf_counter()`.
        status: of the answer; 0 until the answer starts.
        body_bytes: size of the part of its body that the service holds in memory.
        headers: more headers for the answer.
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
        endpoints: the paths that appear in metrics and log by name. All others share one name, because the memory
            would fill with the time series of all the paths that strangers try.
    """

    def __init__(self, app: ASGIApp, endpoints: Collection[str]) -> None:
        self.app, self.endpoints = app, frozenset(endpoints) | HEALTH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Collect the facts about a request; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, own_id = scope["path"], Headers(scope=scope).get("x-request-id", "")
        endpoint = path if path in self.endpoints else "/ui" if path.startswith("/ui/") else "other"
        request_id = own_id if REQUEST_ID.fullmatch(own_id) else uuid.uuid4().hex
        info = RequestInfo(request_id, endpoint, time.perf_counter())
        scope.setdefault("state", {})["info"] = info

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
            await send(message)

        await self.app(scope, receive, send_noting_status)


def info_of(scope: Scope) -> RequestInfo:
    """The facts about an HTTP request; a middleware may change them."""
    info: RequestInfo = scope["state"]["info"]
    return info
