"""Asks a server over HTTP, from a process of its own: as many connections as are wanted, each with one request at a time.

By hand, since a client that costs as much as the server would be what is measured: the machine is shared.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)", re.IGNORECASE)


class Asked(NamedTuple):
    """How many seconds it took to ask for all, how many nanoseconds each answer took, and what the last one said."""

    seconds: float
    times_ns: list[int]
    last_body: str


class UnexpectedAnswerError(Exception):
    """The server answered with another status than 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def ask(base_url: str, paths: Sequence[str], connections: int, token: str | None = None) -> Asked:
    """Ask for each of the paths once, signed in with a token if there is one."""
    return asyncio.run(_ask(base_url, paths, connections, token))


async def _ask(base_url: str, paths: Sequence[str], connections: int, token: str | None) -> Asked:
    address = urlsplit(base_url)
    left = iter(paths)
    times_ns: list[int] = []
    loop = asyncio.get_running_loop()
    head = f"Host: {address.netloc}\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")
    askers = [_Asker(head, left, times_ns) for _ in range(connections)]
    transports = [
        (await loop.create_connection(lambda asker=asker: asker, address.hostname, address.port))[0]
        for asker in askers
    ]
    started = time.perf_counter()
    for asker in askers:
        asker.ask_next()
    await asyncio.gather(*(asker.done for asker in askers))
    seconds = time.perf_counter() - started
    for transport in transports:
        transport.close()
    return Asked(seconds, times_ns, askers[0].last_body.decode())


class _Asker(asyncio.Protocol):
    """One connection: asks for what is next when it has the whole answer, until nothing is left."""

    def __init__(self, head: str, left: Iterator[str], times_ns: list[int]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = head
        self._left = left
        self._times_ns = times_ns
        self._received = b""
        self._asked_at = 0
        self.last_body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask_next(self) -> None:
        path = next(self._left, None)
        if path is None:
            self.done.set_result(None)
            return
        self._received = b""
        self._asked_at = time.perf_counter_ns()
        self._transport.write(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or length is None or len(body) < int(length[1]):
            return
        status = int(head.split(b" ", 2)[1])
        if status != HTTPStatus.OK:
            self.done.set_exception(UnexpectedAnswerError(status, body.decode()))
            return
        self.last_body = body
        self._times_ns.append(time.perf_counter_ns() - self._asked_at)
        self.ask_next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("the server hung up"))
