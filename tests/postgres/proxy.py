"""A way to Postgres that a test can close, or cut at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

# ReadyForQuery outside a transaction: what was asked is done, and committed.
IDLE = b"Z\0\0\0\5I"


class Proxy:
    """Passes connections on to a server until it is told otherwise.

    Attributes:
        url: the database, by way of this proxy.
        answers_to_lose: how many answers that end a transaction are kept from the client; with each, its connection
            is cut.
        cut_at: a question, or a part of it, with which a connection is cut before it is passed on; None for none.
        cuts: how often that was done.

    """

    def __init__(self, database_url: str) -> None:
        self._target = conninfo_to_dict(database_url)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._port = 0
        self.answers_to_lose = 0
        self.cut_at: bytes | None = None
        self.cuts = 0

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
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._connections:
            writer.transport.abort()
        self._connections.clear()
        self._clients.clear()

    def say(self, message: bytes) -> None:
        """Tell all clients something that their server did not say."""
        for writer in self._clients:
            writer.write(message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await self._connect()
        pair = {writer, their_writer}
        self._clients.add(writer)
        self._connections |= pair
        self._begin(self._pump(reader, their_writer, pair, from_server=False))
        self._begin(self._pump(their_reader, writer, pair, from_server=True))

    def _begin(self, pumping) -> None:
        task = asyncio.ensure_future(pumping)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._target.get("host", "localhost")), self._target.get("port", 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(str(Path(host, f".s.PGSQL.{port}")))
        return await asyncio.open_connection(host, int(port))

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: set[asyncio.StreamWriter],
        *,
        from_server: bool,
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if from_server and self.answers_to_lose and data.endswith(IDLE):
                    self.answers_to_lose -= 1
                    break
                if not from_server and self.cut_at is not None and self.cut_at in data:
                    self.cuts += 1
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        for each in pair:
            each.transport.abort()
        self._connections -= pair
        self._clients -= pair
