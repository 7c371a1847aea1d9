"""Servers on real sockets, and readers of their stream that can be cut at any byte."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import uvicorn

from breaker_store import BreakerStore
from breaker_store.api.app import create_app
from breaker_store.serving import GuestServer

PATH = "/api/admin/system/circuit-breakers/transitions/stream"
PATIENCE_SECONDS = 20


class SentEvent(NamedTuple):
    name: str
    id: str
    data: dict[str, Any]

    @property
    def position(self) -> int:
        return int(self.id.partition(".")[0])


class Served:
    """An application that listens, and can be started again at the same address."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self.app = create_app(self.database_url)
        self.server = GuestServer(uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=10))
        self._serving = asyncio.create_task(self.server.serve([listener]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self._serving

    async def start_again(self) -> None:
        await self.__aexit__()
        await self.__aenter__()


class Connection:
    """One connection to the stream, read byte by byte: HTTP/1.0, so that the body is what comes until the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._rest = b""
        self.status = 0

    @classmethod
    @asynccontextmanager
    async def to(
        cls,
        url: str,
        last_event_id: str | None = None,
        query: str = "",
        receive_buffer: int | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Self]:
        parts = urlsplit(url)
        link = socket.socket()
        if receive_buffer is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        link.setblocking(False)
        await asyncio.get_running_loop().sock_connect(link, (parts.hostname, parts.port))
        connection = cls(*await asyncio.open_connection(sock=link, limit=2**16))
        try:
            await connection._ask(last_event_id, query, headers)
            yield connection
        finally:
            connection.cut()

    async def _ask(self, last_event_id: str | None, query: str, headers: Mapping[str, str]) -> None:
        lines = [f"GET {PATH}{query} HTTP/1.0", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if last_event_id is not None:
            lines.append(f"Last-Event-ID: {last_event_id}")
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.head = head.decode().lower()

    def cut(self) -> None:
        self._writer.transport.abort()

    async def next_block(self) -> str:
        """Give what comes up to an empty line; nothing at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"\n\n" not in self._rest:
                data = await self._reader.read(65_536)
                if not data:
                    return ""
                self._rest += data
        block, _, self._rest = self._rest.partition(b"\n\n")
        return block.decode()

    async def next_event(self, name: str | None = None) -> SentEvent:
        """Give the next event, of this name if one is given."""
        while block := await self.next_block():
            event = read_event(block)
            if event is not None and name in (None, event.name):
                return event
        raise EOFError

    async def read_up_to(self, position: int) -> list[SentEvent]:
        """Give the transitions that come, until that of a position has."""
        events = [await self.next_event("transition")]
        while events[-1].position < position:
            events.append(await self.next_event("transition"))
        return events

    async def read_bytes(self, count: int) -> list[SentEvent]:
        """Give what is whole of so many bytes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            blocks = (await self._reader.readexactly(count)).decode(errors="replace").split("\n\n")
        return [event for block in blocks[:-1] if (event := read_event(block)) is not None]


def read_event(block: str) -> SentEvent | None:
    """Read what stands before an empty line; None if it is a comment."""
    fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
    if not fields:
        return None
    return SentEvent(fields["event"], fields["id"], json.loads(fields["data"]))


async def commit(store: BreakerStore, count: int, reason: str | None = None) -> None:
    """Have so many transitions committed, of several users."""
    for number in range(count):
        store.registry.get_breaker(number % 7).reset(reason=reason)
    await store.flush()


def positions(events: list[SentEvent]) -> list[int]:
    return [event.position for event in events]
