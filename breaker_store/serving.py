"""A server of HTTP in somebody else's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

TAKING_SECONDS: Final = 0.5
"""How long a client may take, at the end, to read what waits for it, if it doesn't read."""


class GuestServer(uvicorn.Server):
    """A server of our application that leaves the signals to its host, and ends though streams are open."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # It waits for all answers to end, and these go on for ever.
        self.config.app.state.feed.ending.set()  # type: ignore[union-attr]
        asyncio.get_running_loop().call_later(TAKING_SECONDS, self._cut_who_does_not_read)
        await super().shutdown(sockets)

    def _cut_who_does_not_read(self) -> None:
        for connection in list(self.server_state.connections):
            flow = getattr(connection, "flow", None)
            if flow is not None and flow.write_paused:
                connection.transport.abort()
