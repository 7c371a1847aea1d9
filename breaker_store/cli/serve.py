"""`serve`: the admin API, and the webhooks."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from breaker_store.alerting.configuration import find_webhooks
from breaker_store.cli.ending import extra_needed
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.webhooks_file import WebhooksFile


def serve(
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on; one that others reach needs an access token: `token create`."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any that is free.")] = 8000,
    webhooks: WebhooksFile = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the admin API, and deliver the webhooks, until Ctrl-C."""
    location = locate(database_url, data_dir)
    chosen = find_webhooks(webhooks)
    with extra_needed("server"):
        from breaker_store.cli.api_server import serve_api  # noqa: PLC0415 - an extra
    asyncio.run(serve_api(location, host, port, chosen))
