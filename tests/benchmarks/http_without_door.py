"""The admin API as it would be if nobody had to sign in, served as `breaker-store serve` does it.

What signing in costs is measured against it: `python -m tests.benchmarks.http_without_door DATABASE_URL`.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn

from breaker_store.api.app import create_app
from breaker_store.api.sign_in import RequireSignIn
from breaker_store.serving import GuestServer


async def serve(database_url: str) -> None:
    app = create_app(database_url)
    app.user_middleware = [each for each in app.user_middleware if each.cls is not RequireSignIn]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # No part of an answer waits for another's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server = GuestServer(uvicorn.Config(app, access_log=False, log_level="warning", ws="none"))
        await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
