"""`postgres`: the programs that come with the embedded Postgres, as its owner: for backups, and for a look by SQL."""

from __future__ import annotations

import os
import subprocess
from typing import Annotated

import typer

from breaker_store.cli.location import DataDir, locate
from breaker_store.errors import ConfigurationError


def run_program(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Such as pg_dump, pg_restore, psql.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGUMENTS]...", help="The program's own.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Run a program of the embedded Postgres.

    It finds the server, which runs as long, and acts as the owner. Its exit code is the command's.
    """
    location = locate(None, data_dir)
    if location.data_dir is None:
        raise ConfigurationError(
            "this is for an embedded Postgres: use the programs of your own server with the address that you named"
        )
    from breaker_store.embedded import EmbeddedPostgres  # noqa: PLC0415 - an extra

    with EmbeddedPostgres(location.data_dir) as server:
        connection = {
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": server.user,
            "PGDATABASE": server.dbname,
        }
        ended = subprocess.run(  # noqa: S603 - one of the programs that came with the server
            [server.program(program), *(arguments or ())], env=os.environ | connection, check=False
        )
    raise typer.Exit(ended.returncode)
