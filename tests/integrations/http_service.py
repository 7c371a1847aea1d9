"""A service on a loopback port that answers HTTP as it is told, and well where it is told nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

TOKEN = "7000000001:AAF-sEcReT_sEcReT_sEcReT_sEcReT_sEc"
SEND = f"/bot{TOKEN}/sendMessage"

Behaviour = Callable[["Service", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Service:
    """The service.

    Attributes:
        address: to which paths are added.
        told: how the next requests are answered, in order.
        asked: the first line of each request, and its body.
        go_on: lets answers go on that wait in their middle.
        waiting: is set once such an answer has sent its beginning, or a request has come that gets none.
        gone: is set when a client has closed a connection.

    """

    address: str = ""
    told: deque[Behaviour] = field(default_factory=deque)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me: asyncio.Task[None] | None = asyncio.current_task()
        assert me is not None
        self.connections.add(me)
        try:
            while True:
                line, body = await _read_request(reader)
                self.asked.append((line, body))
                behaviour = self.told.popleft() if self.told else status(200)
                await behaviour(self, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()
            self.connections.discard(me)

    async def end(self) -> None:
        """Wait until all clients have gone."""
        self.go_on.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*self.connections)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines())}
    if "transfer-encoding" in fields:
        body = await reader.readuntil(b"0\r\n\r\n")
    else:
        body = await reader.readexactly(int(fields.get("content-length", 0)))
    return head.splitlines()[0], body


def _head(code: int, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", *fields, "", ""]).encode()


def status(code: int, *fields: str) -> Behaviour:
    """Answer with a status and its number as the body."""

    async def answer(_service: Service, writer: asyncio.StreamWriter) -> None:
        body = str(code).encode()
        writer.write(_head(code, f"Content-Length: {len(body)}", *fields) + body)

    return answer


async def fail_without_end(service: Service, writer: asyncio.StreamWriter) -> None:
    """Answer with 503 and a body that does not end."""
    writer.write(_head(503, "Content-Length: 100") + b"first")
    await service.go_on.wait()


async def stream(service: Service, writer: asyncio.StreamWriter) -> None:
    """Answer with a beginning, and with an end when the test says so."""
    writer.write(_head(200, "Transfer-Encoding: chunked") + b"5\r\nfirst\r\n")
    service.waiting.set()
    await service.go_on.wait()
    writer.write(b"4\r\nlast\r\n0\r\n\r\n")


async def cut(service: Service, writer: asyncio.StreamWriter) -> None:
    """Begin an answer and close the connection when the test says so."""
    writer.write(_head(200, "Content-Length: 100") + b"first")
    service.waiting.set()
    await service.go_on.wait()
    writer.close()


async def drop(_service: Service, writer: asyncio.StreamWriter) -> None:
    """Close the connection without an answer."""
    writer.close()


async def keep_silent(service: Service, _writer: asyncio.StreamWriter) -> None:
    """Give no answer until the test says so."""
    service.waiting.set()
    await service.go_on.wait()


@asynccontextmanager
async def run_service() -> AsyncIterator[Service]:
    """Serve for the length of an `async with`."""
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service.address = f"http://127.0.0.1:{port}"
    try:
        yield service
    finally:
        server.close()
        await service.end()
