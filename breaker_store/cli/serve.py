"""`serve`: the admin API."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from breaker_store.cli.ending import extra_needed
from breaker_store.cli.location import DatabaseUrl, DataDir, locate


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on. There is no login: whoever reaches it may do all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any that is free.")] = 8000,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the admin API until SIGTERM or Ctrl-C."""
    location = locate(database_url, data_dir)
    with extra_needed("server"):
        from breaker_store.cli.api_server import serve_api  # noqa: PLC0415 - an extra
    asyncio.run(serve_api(location, host, port))
