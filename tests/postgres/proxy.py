"""A way to Postgres that a test can close, cut at any message, slow down or freeze.

It reads the protocol's frames, so that it counts messages, into whatever pieces the network puts them: each has a type
of one byte and a length, but for the client's first ones, which have a length only, and for the server's answer to the
question of encryption, which is one byte.
"""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

# ReadyForQuery outside a transaction: what was asked is done, and committed.
IDLE = b"Z\0\0\0\5I"

ASK_FOR_ENCRYPTION = (80877103, 80877104)
PATIENT_BYTES = 2**20


@dataclass(frozen=True)
class Disturbance:
    """What becomes of a connection at one message, once.

    Attributes:
        number: which message, counted from 1 for either direction.
        from_server: its direction.
        passed_on: whether the message still arrives.
        freezes: nothing is passed on any more, in no direction, and nothing is closed; otherwise it is cut.

    """

    number: int
    from_server: bool
    passed_on: bool = False
    freezes: bool = False


class Proxy:
    """Passes connections on to a server until it is told otherwise.

    Attributes:
        url: the database, by way of this proxy.
        answers_to_lose: how many answers that end a transaction are kept from the client; with each, its connection
            is cut.
        cut_at: a question, or a part of it, with which a connection is cut before it is passed on; None for none.
        cuts: how often that was done.
        delay_seconds: how long each message is kept.
        disturbance: what is still to be done; None when it was done.
        asked, answered: the messages that came from clients and from the server since `disturb`: the first byte of each.

    """

    def __init__(self, database_url: str) -> None:
        self._target = conninfo_to_dict(database_url)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._port = 0
        self.answers_to_lose = 0
        self.cut_at: bytes | None = None
        self.cuts = 0
        self.delay_seconds = 0.0
        self.disturb(None)

    @classmethod
    @asynccontextmanager
    async def to(cls, database_url: str) -> AsyncIterator[Self]:
        proxy = cls(database_url)
        await proxy.open()
        try:
            yield proxy
        finally:
            await proxy.close()

    @property
    def url(self) -> str:
        user, password = self._target["user"], self._target.get("password")
        account = (
            quote(str(user)) if password is None else f"{quote(str(user))}:{quote(str(password), safe='')}"
        )
        return f"postgresql://{account}@127.0.0.1:{self._port}/{self._target['dbname']}"

    async def open(self) -> None:
        """Let connections through, at the same address as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=PATIENT_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        for link in self._links:
            link.cut()
        self._links.clear()

    def disturb(self, disturbance: Disturbance | None) -> None:
        """Count messages anew, and disturb one of those to come."""
        self.disturbance = disturbance
        self.asked, self.answered = bytearray(), bytearray()

    def freeze(self) -> None:
        """Pass nothing on of what is connected, and close nothing."""
        for link in self._links:
            link.flowing.clear()

    def thaw(self) -> None:
        """Pass on what froze, as a network does that was away: late, and to whoever is still there."""
        for link in self._links:
            link.flowing.set()

    def say(self, message: bytes) -> None:
        """Tell all clients something that their server did not say."""
        for link in self._links:
            link.client.write(message)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        link = _Link(reader, writer, *await self._connect())
        self._links.add(link)
        for from_server in (False, True):
            pump = asyncio.ensure_future(self._pump(link, from_server=from_server))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        host, port = str(self._target.get("host", "localhost")), self._target.get("port", 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(str(Path(host, f".s.PGSQL.{port}")))
        return await asyncio.open_connection(host, int(port))

    async def _pump(self, link: _Link, *, from_server: bool) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while await self._pass_on(
                await link.read(from_server=from_server), link, from_server=from_server
            ):
                pass
        link.cut()
        self._links.discard(link)

    async def _pass_on(self, message: bytes, link: _Link, *, from_server: bool) -> bool:
        """Pass a message on, if nothing is to become of it; tell whether the connection lasts."""
        disturbance = self._take_disturbance(message, from_server=from_server)
        ends = disturbance is not None and not disturbance.freezes
        passed_on = disturbance is None or disturbance.passed_on
        if self._is_to_be_cut(message, from_server=from_server) or (ends and not passed_on):
            return False
        await asyncio.sleep(self.delay_seconds)
        if not passed_on:
            link.flowing.clear()
        await link.flowing.wait()
        await link.write(message, from_server=from_server)
        if disturbance is not None and disturbance.freezes and passed_on:
            link.flowing.clear()
        return not ends

    def _take_disturbance(self, message: bytes, *, from_server: bool) -> Disturbance | None:
        counted = self.answered if from_server else self.asked
        counted += message[:1]
        planned = self.disturbance
        if planned is None or (planned.from_server, planned.number) != (from_server, len(counted)):
            return None
        self.disturbance = None
        return planned

    def _is_to_be_cut(self, message: bytes, *, from_server: bool) -> bool:
        if from_server and self.answers_to_lose and message == IDLE:
            self.answers_to_lose -= 1
            return True
        if not from_server and self.cut_at is not None and self.cut_at in message:
            self.cuts += 1
            return True
        return False


class _Link:
    """A client's connection, and the one to the server that it is passed on to."""

    def __init__(
        self, asking: StreamReader, client: StreamWriter, answering: StreamReader, server: StreamWriter
    ) -> None:
        self.client, self._server = client, server
        self._asking, self._answering = asking, answering
        self._begun = self._encryption_asked = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        # To drain means that the kernel has all of it: what comes after, a cut even, takes nothing back.
        for writer in (client, server):
            writer.transport.set_write_buffer_limits(high=0)

    async def read(self, *, from_server: bool) -> bytes:
        if from_server:
            return await self._read_answer()
        return await _read(self._asking) if self._begun else await self._read_beginning()

    async def write(self, message: bytes, *, from_server: bool) -> None:
        writer = self.client if from_server else self._server
        writer.write(message)
        await writer.drain()

    def cut(self) -> None:
        self.client.transport.abort()
        self._server.transport.abort()

    async def _read_beginning(self) -> bytes:
        message = await _read(self._asking, typed=False)
        self._encryption_asked = struct.unpack_from(">i", message, 4)[0] in ASK_FOR_ENCRYPTION
        self._begun = not self._encryption_asked
        return message

    async def _read_answer(self) -> bytes:
        kind = await self._answering.readexactly(1)
        if self._encryption_asked and not self._begun and kind != b"E":
            return kind
        return kind + await _read(self._answering, typed=False)


async def _read(reader: StreamReader, *, typed: bool = True) -> bytes:
    head = await reader.readexactly(5 if typed else 4)
    (length,) = struct.unpack(">i", head[-4:])
    return head + await reader.readexactly(length - 4)
