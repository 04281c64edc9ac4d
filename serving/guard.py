"""What stands before every endpoint: who may ask, how much, how long, and how many at a time.

A request reaches the code behind only whole: its body is read here, within a limit and a time.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import REQUEST_SECONDS, REQUESTS
from serving.refusals import Refusal
from serving.settings import Settings

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""Asked by machines that watch: never refused, not logged."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
DRAIN_FACTOR = 4
"""A body over the limit is read on to this many times the limit, and thrown away, so that its sender hears why."""

logger = logging.getLogger("bentoml.access")


class Guard:
    """ASGI middleware; one a worker.

    Args:
        settings: the limits.
        service_name: as Prometheus shows it.
        endpoints: the paths that get time series of their own; all others share one, whatever strangers ask for.
    """

    def __init__(self, app: ASGIApp, settings: Settings, service_name: str, endpoints: Collection[str]) -> None:
        self.app, self.settings = app, settings
        self.service_name, self.endpoints = service_name, frozenset(endpoints) | HEALTH
        self.requests_held, self.bytes_held = 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request; anything but HTTP goes its way."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send, self.settings.send_seconds)
        started = time.perf_counter()
        body = _Body()
        try:
            await self._handle(scope, receive, answer, body)
        except Refusal as refusal:
            await refusal.response()(scope, receive, answer)
        except _NotRead:
            logger.warning("the client does not read its answer, request %s", answer.request_id)
        finally:
            self.bytes_held -= body.size
            self._record(scope, answer, time.perf_counter() - started, body.size)

    async def _handle(self, scope: Scope, receive: Receive, answer: _Answer, body: _Body) -> None:
        if scope["path"] in HEALTH:
            await self.app(scope, receive, answer)
            return
        self._check_token(scope)
        if Headers(scope=scope).get("content-type", "").startswith("application/vnd.bentoml"):
            raise Refusal(415, "unsupported_content_type", "BentoML's own formats are not read here.")
        await self._read(scope, receive, answer, body)
        if self.requests_held >= self.settings.max_requests:
            raise Refusal(429, "too_many_requests", "The service is at its limit of requests: try again in a moment.")
        self.requests_held += 1
        try:
            await self.app(scope, body.replay(receive), answer)
        finally:
            self.requests_held -= 1

    def _check_token(self, scope: Scope) -> None:
        if self.settings.token:
            sent = Headers(scope=scope).get("authorization", "")
            if not hmac.compare_digest(sent.encode(), f"Bearer {self.settings.token}".encode()):
                raise Refusal(
                    401, "unauthorized", "Send the header `Authorization: Bearer TOKEN` with the right token."
                )

    async def _read(self, scope: Scope, receive: Receive, answer: _Answer, body: _Body) -> None:
        """Read the whole body into `body`."""
        limit = int(self.settings.max_body_megabytes * 1_000_000)
        too_large = Refusal(413, "body_too_large", f"A request may have {limit / 1e6:g} MB at most.")
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > DRAIN_FACTOR * limit:
            answer.close = True
            raise too_large
        received = 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "cut_off", "The request ended before its body did.")
                    received += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if received > DRAIN_FACTOR * limit:
                        answer.close = True
                        break
                    if received <= limit:
                        self._hold(message.get("body", b""), body)
        except TimeoutError:
            answer.close = True
            raise Refusal(
                408, "too_slow", f"The body did not arrive within {self.settings.body_seconds:g} seconds."
            ) from None
        if received > limit:
            raise too_large

    def _hold(self, chunk: bytes, body: _Body) -> None:
        if self.bytes_held + len(chunk) > self.settings.max_held_megabytes * 1_000_000:
            raise Refusal(429, "too_many_bytes", "The service is reading as much as it can: try again in a moment.")
        body.chunks.append(chunk)
        body.size += len(chunk)
        self.bytes_held += len(chunk)

    def _record(self, scope: Scope, answer: _Answer, seconds: float, size: int) -> None:
        path = scope["path"]
        endpoint = path if path in self.endpoints else "/ui" if path.startswith("/ui/") else "other"
        REQUESTS.labels(endpoint, str(answer.status), self.service_name).inc()
        REQUEST_SECONDS.labels(endpoint, self.service_name).observe(seconds)
        if path not in HEALTH:
            # The endpoint and not the path: what a client wrote does not belong into a log.
            logger.info(
                "%s %s %d, %d bytes in, %.1f ms, request %s",
                scope["method"] if scope["method"] in METHODS else "?", endpoint, answer.status, size, seconds * 1000,
                answer.request_id,
            )  # fmt: skip


class _Body:
    """A body as it comes in."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.replayed = False

    def replay(self, receive: Receive) -> Receive:
        """A `receive` that hands out the whole body at once, and then what comes after it."""

        async def replayed() -> Message:
            if self.replayed:
                return await receive()
            self.replayed, whole = True, b"".join(self.chunks)
            self.chunks.clear()
            return {"type": "http.request", "body": whole, "more_body": False}

        return replayed


class _NotRead(Exception):
    """A client left its answer lying for too long; the connection is closed."""


class _Answer:
    """A `send` that adds headers to the answer, makes every refusal (4xx) JSON, and waits for no client for ever."""

    def __init__(self, scope: Scope, send: Send, seconds: float) -> None:
        asked = Headers(scope=scope).get("x-request-id", "")
        self.request_id = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        self.status = 0
        self.close = False
        self._scope, self._send, self._seconds = scope, send, seconds
        self._instead: Refusal | None = None
        self._allow: str | None = None  # RFC 9110, 15.5.6: a 405 says which methods there are

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            self.status = message["status"]
            kind = headers.get("content-type", "")
            if 400 <= self.status < 500 and not kind.startswith("application/json"):
                self._instead, self._allow = _plain_refusal(self.status, headers), headers.get("allow")
                return
            headers["X-Request-ID"] = self.request_id
            headers.update(SECURITY_HEADERS)
            if self.close:
                headers["Connection"] = "close"
            if self._allow:
                headers["Allow"] = self._allow
        elif self._instead is not None:
            if message.get("more_body", False):
                return
            instead, self._instead = self._instead, None
            await instead.response()(self._scope, _nothing, self)
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            raise _NotRead from None


def _plain_refusal(status: int, headers: Headers) -> Refusal:
    if status == 404:
        return Refusal(404, "not_found", "There is nothing at this address; /docs lists what there is.")
    if status == 405:
        return Refusal(405, "wrong_method", f"This address answers {headers.get('allow', 'another method')} only.")
    return Refusal(status, "refused", "The request was refused.")


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
