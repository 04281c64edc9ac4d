"""A small load generator. It sends prepared bytes over kept connections, so that it takes little from the servers.

`python -m benchmarks.load URL FILE CONTENT_TYPE CONCURRENCY SECONDS [RATE]` prints the latencies as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send small packets at once, so that the delayed acknowledgements of TCP are not measured."""
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future gets the status of its answer."""
        self.received = bytearray()
        self.length = -1
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        return self.answer

    def data_received(self, data: bytes) -> None:
        """Keep a piece of the answer."""
        self.received += data
        if self.length < 0 and (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.received[:end]).lower()
            self.length = end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if 0 <= self.length <= len(self.received) and not self.answer.done():
            self.answer.set_result(int(self.received[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """A connection that ends before its answer is a failed request."""
        if hasattr(self, "answer") and not self.answer.done():
            self.answer.set_result(0)


async def load(
    url: str, body: bytes, content_type: str, concurrency: int, seconds: float, rate: float
) -> tuple[list[float], int]:
    """Latencies in seconds, and how many answers were not 200.

    Args:
        concurrency: connections.
        rate: requests a second, evenly spaced; a latency starts when its request is due. 0: as fast as answers come.
    """
    target = urlsplit(url)
    host, port = target.hostname or "127.0.0.1", target.port or 80
    request = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    failures = 0
    start = time.perf_counter()
    due = deque(start + number / rate for number in range(int(rate * seconds))) if rate else None

    async def client() -> None:
        nonlocal failures
        _, connection = await loop.create_connection(Connection, host, port)
        while time.perf_counter() < start + seconds:
            if due is not None:
                if not due:
                    break
                begin = due.popleft()
                await asyncio.sleep(max(0.0, begin - time.perf_counter()))
            else:
                begin = time.perf_counter()
            status = await connection.ask(request)
            latencies.append(time.perf_counter() - begin)
            failures += status != 200
            if status == 0:
                _, connection = await loop.create_connection(Connection, host, port)
        connection.transport.close()

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return latencies, failures


def main() -> None:
    """Put load on a server and print what came of it."""
    url, file, content_type, concurrency, seconds, *rate = sys.argv[1:]
    latencies, failures = asyncio.run(
        load(url, Path(file).read_bytes(), content_type, int(concurrency), float(seconds), float(*rate or "0"))
    )
    print(json.dumps([latencies, failures]))


if __name__ == "__main__":
    main()
