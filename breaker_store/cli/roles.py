"""`roles`: the database's roles, so that the application can append to the log and not change it."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate, owner_address
from breaker_store.postgres.privileges import DEFAULT_APPLICATION, DEFAULT_MAINTENANCE, Roles, roles_sql

app = typer.Typer(help="Make the roles of the database, and what they may.", no_args_is_help=True)

Application: TypeAlias = Annotated[
    str, typer.Option("--application", metavar="NAME", help="The role of bots, API and commands.")
]
Maintenance: TypeAlias = Annotated[
    str, typer.Option("--maintenance", metavar="NAME", help="The role of retention and erasure.")
]


@app.command("sql")
def print_sql(
    application: Application = DEFAULT_APPLICATION, maintenance: Maintenance = DEFAULT_MAINTENANCE
) -> None:
    """Print the SQL that makes the roles, to be read, and run by the owner.

    It can be run again, and should be after each migration.
    """
    typer.echo(roles_sql(Roles(application, maintenance)), nl=False)


@app.command("apply")
def apply_sql(
    application: Application = DEFAULT_APPLICATION,
    maintenance: Maintenance = DEFAULT_MAINTENANCE,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Run that SQL as whom the address names: the owner."""
    from breaker_store.postgres.roles import apply_roles  # noqa: PLC0415 - slow to import

    roles = Roles(application, maintenance)
    with owner_address(locate(database_url, data_dir)) as owner_url:
        run(apply_roles(owner_url, roles))
    typer.echo(f"{application} may append to the log and read it; {maintenance} may read it")
