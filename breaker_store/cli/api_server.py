"""The admin API in a server of its own, which ends with its process: cleanly, and within seconds."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import closing
from ipaddress import ip_address
from typing import Final

import typer
import uvicorn

from breaker_store.alerting.configuration import Webhook
from breaker_store.alerting.delivery import delivering
from breaker_store.cli.ending import INTERRUPTED
from breaker_store.errors import ConfigurationError
from breaker_store.postgres.access_tokens import any_token_made
from breaker_store.retention import maintaining
from breaker_store.rolling_up import rolling_up
from breaker_store.serving import GuestServer
from breaker_store.settings import Location
from breaker_store.staged_reset import resetting
from breaker_store.store import open_database

# Named by an import string: in a checkout its folder stands apart, and is part of the package only when installed.
_create_app = importlib.import_module("breaker_store.api.app").create_app

logger = logging.getLogger(__name__)

FORWARDED_VARIABLE: Final = "FORWARDED_ALLOW_IPS"
"""Names the proxies whose X-Forwarded-For is believed, as uvicorn reads it."""

GRACE_SECONDS: Final = 2
"""How long requests that are under way may take at the end."""

_NO_TOKEN: Final = "no access token was ever made"  # noqa: S105 - words
_ALL_MAY: Final = (
    "%s: whoever is on this machine may do all, until one is made (%s); so may who comes through a proxy on it that says "
    "nothing of them"
)
_MAKE_ONE: Final = "`breaker-store token create NAME --role operator`"


async def serve_api(location: Location, host: str, port: int, webhooks: Sequence[Webhook]) -> None:
    """Serve, deliver webhooks, carry out staged resets, roll up and maintain, until SIGTERM or SIGINT.

    SIGINT gives its exit code.

    Raises:
        ConfigurationError: the address can't be listened on; or it is not the loopback one, and no token was ever made.
        BreakerStoreError: the database can't be had.

    """
    with closing(_listen(host, port)) as listener:
        serving = _Serving()
        serving.end_by_signals()
        try:
            async with open_database(location) as database_url:
                await _check_tokens(database_url, listener)
                async with (
                    delivering(webhooks, database_url),
                    resetting(database_url),
                    rolling_up(database_url),
                    maintaining(database_url),
                ):
                    await serving.serve(database_url, listener)
        except asyncio.CancelledError:
            if serving.ended_by is None:
                raise
    if serving.ended_by == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


async def _check_tokens(database_url: str, listener: socket.socket) -> None:
    """Let nobody in from outside for whom no token was made; on this machine alone it is enough to say so."""
    if await any_token_made(database_url):
        return
    if not ip_address(listener.getsockname()[0]).is_loopback:
        raise ConfigurationError(f"{_NO_TOKEN}: on an address that others reach one is needed ({_MAKE_ONE})")
    # To the terminal too, unless whoever runs this says where logs go.
    logger.warning(_ALL_MAY, _NO_TOKEN, _MAKE_ONE)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else is started."""
    try:
        [family, _, _, _, address], *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:  # the latter for what can't be a host's name
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"can't listen on {host}, port {port}: {reason}") from error
    # Inherited by each connection. asyncio sets it only for sockets that it made itself, and without it the body of an
    # answer waits until the client has acknowledged the head: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Serving:
    """A server that may be told to end at any time, also while its database is still starting."""

    def __init__(self) -> None:
        self.ended_by: signal.Signals | None = None
        self._server: GuestServer | None = None
        self._task = asyncio.current_task()

    def end_by_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, number)

    def _end(self, number: signal.Signals) -> None:
        self.ended_by = number
        if self._server is not None:
            self._server.should_exit = True
        elif self._task is not None:
            self._task.cancel()

    async def serve(self, database_url: str, listener: socket.socket) -> None:
        config = uvicorn.Config(
            _create_app(database_url),
            access_log=False,
            log_level="warning",
            # By itself uvicorn believes whoever is on this machine, and each attempt to sign in could bring another
            # address.
            proxy_headers=FORWARDED_VARIABLE in os.environ,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ws="none",
        )
        self._server = GuestServer(config)
        typer.echo(f"serving on {_address(listener)} (Ctrl-C ends it)")
        await self._server.serve(sockets=[listener])


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
