"""`health`: how bots are and were, with small charts."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.cli.user_id import read_user_id
from breaker_store.core.buckets import Bucket
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.bot_health import BotHealth
    from breaker_store.postgres.fleet_health import FleetHealth, UnhealthyBot
    from breaker_store.postgres.fleet_history import FleetHistoryItem
    from breaker_store.postgres.health_history import HistoryItem

UNHEALTHY_SHOWN: Final = 20


class BotReport(NamedTuple):
    health: BotHealth
    history: list[HistoryItem]


class FleetReport(NamedTuple):
    """How all bots are; `unhealthy` are the worst of those that are not healthy."""

    health: FleetHealth | None
    unhealthy: list[UnhealthyBot]
    history: list[FleetHistoryItem]


def show_health(
    user_id: Annotated[
        int | None,
        typer.Argument(parser=read_user_id, metavar="[USER_ID]", help="Whose bot. [default: all bots]"),
    ] = None,
    by_minute: Annotated[
        bool, typer.Option("--by-minute", help="Chart the last hour by minute, not the last day by hour.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how a bot is and was, or how all of them are."""
    location, bucket = locate(database_url, data_dir), Bucket.MINUTE if by_minute else Bucket.HOUR
    report = run(_ask(location, user_id, bucket))
    if as_json:
        typer.echo(json.dumps(_to_document(report), default=plain))
    else:
        _print(report, bucket)


async def _ask(location: Location, user_id: int | None, bucket: Bucket) -> BotReport | FleetReport:
    return await (_ask_fleet(location, bucket) if user_id is None else _ask_bot(location, user_id, bucket))


async def _ask_bot(location: Location, user_id: int, bucket: Bucket) -> BotReport:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.bot_health import bot_health  # noqa: PLC0415
    from breaker_store.postgres.bot_history import bot_history  # noqa: PLC0415
    from breaker_store.postgres.health_history import HistoryRange  # noqa: PLC0415

    async with asking(location) as connection:
        health = await bot_health(connection, user_id)
        return BotReport(health, await bot_history(connection, user_id, HistoryRange(bucket)))


async def _ask_fleet(location: Location, bucket: Bucket) -> FleetReport:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.fleet_health import fleet_health, unhealthy_bots  # noqa: PLC0415
    from breaker_store.postgres.fleet_history import fleet_history  # noqa: PLC0415
    from breaker_store.postgres.health_history import HistoryRange  # noqa: PLC0415

    async with asking(location) as connection:
        health = await fleet_health(connection)
        worst = await unhealthy_bots(connection, limit=UNHEALTHY_SHOWN)
        return FleetReport(health, worst.items, await fleet_history(connection, HistoryRange(bucket)))


def _to_document(report: BotReport | FleetReport) -> dict[str, object]:
    return {name: _to_plain(value) for name, value in report._asdict().items()}


def _to_plain(value: object) -> object:
    if isinstance(value, list):
        return [_to_plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def _print(report: BotReport | FleetReport, bucket: Bucket) -> None:
    from breaker_store.cli.health_lines import print_bot, print_chart, print_fleet  # noqa: PLC0415 - slow to import

    if isinstance(report, BotReport):
        print_bot(report.health)
    else:
        print_fleet(report.health, report.unhealthy)
    print_chart(report.history, bucket)
