"""The service that the bots call: a real server on a loopback port, which misbehaves as it is told.

It speaks the little of Telegram's bot API that the fleet needs: `POST /bot<token>/sendMessage`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from aiohttp import web

from breaker_store.demo.schedule import Behaviour

HOST = "127.0.0.1"
SLOW_SECONDS = 5.0
_FIRST_BOT_ID = 7_000_000_000


def make_token(bot: int) -> str:
    """Make a bot's token: of the right form, the same in every run, and good for nothing."""
    digest = hashlib.sha256(f"demo bot {bot}".encode()).digest()
    return f"{_FIRST_BOT_ID + bot}:{base64.urlsafe_b64encode(digest).decode()[:35]}"


class Provider:
    """The misbehaving service.

    `behaviour_of` is asked at each request what the bot with that number gets. A slow answer takes `SLOW_SECONDS`.
    """

    def __init__(self, behaviour_of: Callable[[int], Behaviour], port: int, dead_port: int) -> None:
        self._behaviour_of = behaviour_of
        self._port = port
        self._dead_port = dead_port
        self._message_ids = itertools.count(1)

    def address_of(self, bot: int) -> str:
        """Tell where a bot finds the service now, as a name server would; that nobody listens there can happen."""
        refused = self._behaviour_of(bot) is Behaviour.REFUSED
        return f"http://{HOST}:{self._dead_port if refused else self._port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        bot = _bot_of(request.match_info["token"])
        match self._behaviour_of(bot):
            case Behaviour.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            case Behaviour.SERVER_ERROR:
                return web.json_response({"ok": False, "description": "Service Unavailable"}, status=503)
            case Behaviour.DROPPED | Behaviour.REFUSED:
                # Whoever was still connected when the service went away is cut off.
                _cut(request)
            case Behaviour.HEALTHY:
                pass
        return web.json_response({"ok": True, "result": {"message_id": next(self._message_ids)}})


@asynccontextmanager
async def run_provider(behaviour_of: Callable[[int], Behaviour]) -> AsyncIterator[Provider]:
    """Serve on a free loopback port for the length of an `async with`."""
    with closing(_bind()) as listener, closing(_bind()) as dead:
        # Bound but not listening: connections are refused, and nobody else can take the port meanwhile.
        provider = Provider(behaviour_of, listener.getsockname()[1], dead.getsockname()[1])
        application = web.Application()
        application.router.add_post("/bot{token}/sendMessage", provider.answer)
        runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,
            handle_signals=False,
            shutdown_timeout=0.5,
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield provider
        finally:
            await runner.cleanup()


def _bind() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind((HOST, 0))
    return bound


def _bot_of(token: str) -> int:
    bot_id, _, _ = token.partition(":")
    if not bot_id.isdecimal() or token != make_token(int(bot_id) - _FIRST_BOT_ID):
        raise web.HTTPUnauthorized
    return int(bot_id) - _FIRST_BOT_ID


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
