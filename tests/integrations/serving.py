"""ASGI applications behind a real server, in this process and in one of their own."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn


class Server(uvicorn.Server):
    """A server that can be awaited until it has started."""

    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve for the length of an `async with`, and give a client whose addresses are those of the application."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.has_started.wait()
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def running(folder: Path, source: str) -> AsyncIterator[tuple[Process, str]]:
    """Have uvicorn run the `app` of a program in a process, and give its address."""
    (folder / "program.py").write_text(source)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "uvicorn", "program:app", "--port", "0"),
        cwd=folder,
        stderr=PIPE,
        stdout=PIPE,
    )
    try:
        yield process, await _address_of(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _address_of(process: Process) -> str:
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        _, found, rest = line.partition("running on ")
        if found:
            return rest.split()[0]
    raise AssertionError("it does not start")
