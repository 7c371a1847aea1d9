"""A receiver of webhooks on a real socket, which answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

HANG, CUT = "hang", "cut"
"""Instead of a status: say nothing, and close the connection without an answer."""


@dataclass(frozen=True)
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """Takes what is posted. `answers` are given first, one a request; then `always`."""

    url: str = ""
    answers: deque[Any] = field(default_factory=deque)
    always: Any = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    received: list[Received] = field(default_factory=list)
    """Every request, whatever it was answered."""
    taken: list[Received] = field(default_factory=list)
    """Those that were answered with 2xx."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        received = Received(
            {name.lower(): value for name, value in request.headers.items()}, await request.read()
        )
        self.received.append(received)
        answer = self.answers.popleft() if self.answers else self.always
        if isinstance(answer, int) and 200 <= answer < 300:
            self.taken.append(received)
        self.news.set()
        if answer == HANG:
            await asyncio.Event().wait()
        if answer == CUT:
            request.transport.abort()
        return web.Response(
            status=answer if isinstance(answer, int) else 200, headers=self.headers, text=self.text
        )

    async def wait_for(self, count: int) -> list[Received]:
        """Wait until so many were taken."""
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                self.news.clear()
                await self.news.wait()
        return self.taken

    async def wait_for_requests(self, count: int) -> list[Received]:
        """Wait until there were so many requests."""
        async with asyncio.timeout(20):
            while len(self.received) < count:
                self.news.clear()
                await self.news.wait()
        return self.received


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    receiver.url = f"http://{host}:{port}/services/secret-path"
    try:
        yield receiver
    finally:
        await runner.cleanup()
