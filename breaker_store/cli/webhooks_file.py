"""The option that names the file of webhooks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from breaker_store.alerting.configuration import WEBHOOKS_VARIABLE

WebhooksFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--webhooks",
        metavar="FILE",
        help=f"A TOML file that says whom to tell of trips and recoveries. [env: {WEBHOOKS_VARIABLE}]",
    ),
]
