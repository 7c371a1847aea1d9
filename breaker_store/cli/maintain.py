"""`maintain`: make partitions ahead, and drop what nobody wants to keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from breaker_store.cli.acting import Actor, AsJson
from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.core.wording import counted, size
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.retention import Span
    from breaker_store.retention import Plan, Report

USERS_SHOWN: Final = 5


def maintain_log(
    actor: Actor,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be dropped, and do nothing.")
    ] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make partitions ahead, drop what retention lets go.

    It rolls up first. A `serve` that runs does the same once an hour. What a breaker's count needs of a day is carried
    over first, by an event. What was dropped stands in the tables dropped_partitions and dropped_rollups.
    """
    location = locate(database_url, data_dir)
    if dry_run:
        plan = run(_plan(location))
        document, lines = _plan_document(plan), _plan_lines(plan)
    else:
        report = run(_maintain(location, actor))
        document, lines = _report_document(report), _report_lines(report)
    for line in [json.dumps(document, default=plain)] if as_json else lines:
        typer.echo(line)


async def _plan(location: Location) -> Plan:
    from breaker_store.retention import plan  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        return await plan(database_url)


async def _maintain(location: Location, actor: str) -> Report:
    from breaker_store.retention import maintain  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        return await maintain(database_url, actor)


def _plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "would_drop": [asdict(span) for span in plan.due],
        "would_carry_over": plan.to_carry_over,
        "uncounted": [asdict(span) | {"why": why} for span, why in plan.uncounted],
    }


def _report_document(report: Report) -> dict[str, Any]:
    return {
        "partitions_made": report.partitions_made,
        "carried_over": report.carried_over,
        "dropped": [asdict(span) for span in report.dropped],
        "kept": [asdict(span) | {"why": why} for span, why in report.kept],
    }


def _plan_lines(plan: Plan) -> Iterator[str]:
    for span, why in plan.uncounted:
        yield f"would roll up first: the {span}, since {why}"
    if plan.to_carry_over:
        yield f"would carry over the count of {_users(plan.to_carry_over)}"
    for span in plan.due:
        yield f"would drop the {_described(span)}"
    if not plan.due:
        yield "nothing would be dropped"


def _report_lines(report: Report) -> Iterator[str]:
    if report.partitions_made:
        yield f"made {counted(report.partitions_made, 'partition')} ahead"
    if report.carried_over:
        yield f"carried over the count of {_users(report.carried_over)}"
    for span in report.dropped:
        yield f"dropped the {_described(span)}"
    for span, why in report.kept:
        yield f"kept the {span}: {why}"
    if not report.dropped:
        yield "nothing was dropped"


def _described(span: Span) -> str:
    parts = [] if span.outcomes is None else [counted(span.outcomes, "outcome")]
    parts += [] if span.bytes is None else [size(span.bytes)]
    return f"{span}: {', '.join(parts)}" if parts else str(span)


def _users(user_ids: list[int]) -> str:
    shown = ", ".join(map(str, user_ids[:USERS_SHOWN]))
    more = len(user_ids) - USERS_SHOWN
    return f"{counted(len(user_ids), 'user')}: {shown}" + (f" and {more:,} more" if more > 0 else "")
