"""A service in a process of its own, that answers bots well, badly or never; it costs as little as it can.

It is asked for `/ok`, `/bad` (503), `/revoked` (401) and `/silent`, and speaks just enough HTTP for a client that keeps
its connections.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

HOST: Final = "127.0.0.1"


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_ANSWERS: Final = {
    b"/ok": _answer("200 OK", b'{"ok":true,"result":{"message_id":1}}'),
    b"/bad": _answer("503 Service Unavailable", b'{"ok":false}'),
    b"/revoked": _answer("401 Unauthorized", b'{"ok":false,"description":"Unauthorized"}'),
    b"/silent": b"",
}


class _Connection(asyncio.Protocol):
    """One request at a time, each without a body, in one packet: what the benchmark's client sends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1]
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(_ANSWERS[path])


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Until whoever started it closes its input, or dies.
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@asynccontextmanager
async def run_service() -> AsyncIterator[str]:
    """Run it for the length of an `async with`, and give its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.benchmarks.bot_service",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://{HOST}:{int(await process.stdout.readline())}"
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
