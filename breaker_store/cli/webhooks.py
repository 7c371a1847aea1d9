"""`webhooks`: how the telling goes, and whether it arrives."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from breaker_store.alerting.configuration import WEBHOOKS_VARIABLE, Webhook, find_entries
from breaker_store.cli.ending import FAILED, extra_needed, run, say
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.cli.webhooks_file import WebhooksFile
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.alerting.sending import Answer
    from breaker_store.postgres.webhooks import WebhookItem

NUMBERS: Final = ("behind", "delivered", "refused")
COLUMNS: Final = ("webhook", "host", "status", *NUMBERS, "last delivered", "last error")
NOTHING: Final = "-"
WIDEST: Final = 100_000

app = typer.Typer(help="Tell others of trips and recoveries: how that goes.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name in the file.")]


@app.command("list")
def list_webhooks(
    webhooks: WebhooksFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how far each has come, and what is wrong.

    Those of the file, and those that the database knows.
    """
    hosts = {entry.name: entry.read_host() for entry in find_entries(webhooks)}
    items = {item.name: item for item in run(_ask(locate(database_url, data_dir)))}
    lines = [_line(name, hosts, items.get(name)) for name in sorted(hosts | items)]
    if as_json:
        for line in lines:
            typer.echo(json.dumps(line, default=plain))
    elif lines:
        _print_table(lines)
    else:
        say("there are no webhooks")


async def _ask(location: Location) -> list[WebhookItem]:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.webhooks import webhook_items  # noqa: PLC0415

    async with asking(location) as connection:
        return await webhook_items(connection)


def _line(name: str, hosts: Mapping[str, str | None], item: WebhookItem | None) -> dict[str, Any]:
    line = {"name": name, "host": hosts.get(name), "status": _status(item, in_file=name in hosts)}
    return line if item is None else line | dataclasses.asdict(item)


def _status(item: WebhookItem | None, *, in_file: bool) -> str:
    if item is None:
        return "not begun"
    if item.delivering:
        return "delivering"
    return "stopped" if in_file else "not in the file"


def _print_table(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from breaker_store.core.wording import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for line in lines:
        table.add_row(*map(printable, _cells(line)))
    # As wide as it needs to be: a line that is too long is the terminal's to wrap.
    Console(markup=False, highlight=False, width=WIDEST).print(table)


def _cells(line: dict[str, Any]) -> Iterator[str]:
    yield from (line["name"], line["host"] or NOTHING, line["status"])
    for name in NUMBERS:
        yield f"{line[name]:,}" if name in line else NOTHING
    delivered_at, error_at = line.get("last_delivered_at"), line.get("last_error_at")
    yield f"{delivered_at:%Y-%m-%d %H:%M:%S}Z" if delivered_at else NOTHING
    yield f"{error_at:%Y-%m-%d %H:%M:%S}Z  {line['last_error']}" if error_at else NOTHING


@app.command("test")
def send_test(
    name: Name,
    webhooks: WebhooksFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Send a test message now, and show what the receiver says to it."""
    webhook = _find(name, webhooks)
    with extra_needed("server"):
        from breaker_store.alerting import sending  # noqa: PLC0415 - an extra
    began = time.monotonic()
    answer = run(_send(webhook))
    seconds = round(time.monotonic() - began, 3)
    is_delivered = answer.verdict is sending.Verdict.DELIVERED
    if as_json:
        outcome = {"name": name, "host": webhook.host, "delivered": is_delivered}
        typer.echo(json.dumps(outcome | {"answer": answer.text, "seconds": seconds}))
    else:
        outcome_words = "took it" if is_delivered else "did not take it"
        typer.echo(f"{webhook.host} {outcome_words} in {seconds:.3f} s: {answer.text}")
    if not is_delivered:
        raise typer.Exit(FAILED)


def _find(name: str, path: Path | None) -> Webhook:
    found = {entry.name: entry for entry in find_entries(path)}
    if name in found:
        return found[name].read()
    if not found:
        raise typer.BadParameter(f"no webhooks: pass --webhooks, or set {WEBHOOKS_VARIABLE}")
    raise typer.BadParameter(f"there is none of this name, but {', '.join(found)}")


async def _send(webhook: Webhook) -> Answer:
    from breaker_store.alerting.messages import compose_test  # noqa: PLC0415 - slow to import
    from breaker_store.alerting.sending import open_sender  # noqa: PLC0415

    async with open_sender(webhook) as sender:
        return await sender.send(compose_test(webhook, time.time_ns() // 1_000))


@app.command("forget")
def forget_webhook(name: Name, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Let one begin anew at the log's end.

    What it has not told yet is passed over.
    """
    if not run(_forget(locate(database_url, data_dir), name)):
        raise typer.BadParameter("there is no webhook of this name that has begun")
    typer.echo(f"the webhook {name} begins anew")


async def _forget(location: Location, name: str) -> bool:
    from breaker_store.postgres.webhooks import forget_webhook  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        return await forget_webhook(database_url, name)
