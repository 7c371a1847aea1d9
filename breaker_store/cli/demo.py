"""`demo`: breakers at work."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from breaker_store.cli.ending import extra_needed
from breaker_store.cli.location import DatabaseUrl, DataDir, locate


def show_demo(
    bots: Annotated[int, typer.Option(min=1, help="How many bots there are.")] = 40,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to show it. [default: until Ctrl-C]")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where the admin API listens; 0 takes any that is free.")
    ] = 8000,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show a fleet of bots at work, whose provider misbehaves."""
    location = locate(database_url, data_dir)
    with extra_needed("demo"):
        from breaker_store.demo import run_demo  # noqa: PLC0415 - an extra
    asyncio.run(run_demo(location=location, bots=bots, seconds=seconds, port=port))
