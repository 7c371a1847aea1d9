"""The admin API in the demo's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from breaker_store.errors import ConfigurationError
from breaker_store.serving import GuestServer

HOST = "127.0.0.1"
DEFAULT_PORT = 8000
PORTS = range(65_536)
API_PATH = "/api/admin/system/circuit-breakers"


@contextmanager
def bind_api_port(port: int) -> Iterator[socket.socket]:
    """Take a loopback port before anything else is started; 0 takes any that is free.

    When the default port is taken, a free one does as well: nobody asked for it by name.

    Raises:
        ConfigurationError: the port is taken, can't be had, or is none.

    """
    with contextlib.closing(_listen(port)) as listener:
        yield listener


def _listen(port: int) -> socket.socket:
    if port not in PORTS:
        raise ConfigurationError(f"a port is a number from 0 to 65535, not {port}")
    try:
        # It listens from here on: a port that is merely bound can still be taken by another.
        return socket.create_server((HOST, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} can't be had: {error.strerror}") from error
        if port != DEFAULT_PORT:
            raise ConfigurationError(f"port {port} is taken; choose another, or 0 for a free one") from error
        return socket.create_server((HOST, 0))


def find_api() -> Callable[[str], Any]:
    """Find what makes the application of a database's address, by an import string: it stands above this package.

    This takes half a second, and may be done in a thread.
    """
    create_app: Callable[[str], Any] = importlib.import_module("breaker_store.api.app").create_app
    return create_app


@asynccontextmanager
async def serve_api(application: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an ASGI application on a bound socket for the length of an `async with`; it says nothing."""
    server = GuestServer(
        uvicorn.Config(
            application,
            access_log=False,
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=1,
            ws="none",
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="demo's admin API")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
