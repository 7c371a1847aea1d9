"""Health for people: a sentence, what it rests on, and a chart that fits into 80 columns.

The bars are rich's, which draws the tables too. A library for plots (plotext, alive in 2026) would draw curves with axes,
but the numbers would not stand beside them, and a line for each hour is read as well from a pipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from breaker_store.core.buckets import Bucket
from breaker_store.core.wording import counted, listed, printable, quoted, shortened
from breaker_store.postgres.bot_health import BotHealth
from breaker_store.postgres.fleet_health import FleetHealth, UnhealthyBot
from breaker_store.postgres.health_history import Coverage, HistoryItem

NOTHING: Final = "-"
BAR_WIDTH: Final = 10
STYLES: Final = {"healthy": "green", "degraded": "yellow", "unhealthy": "bold red", "suspended": "magenta"}

_ERROR_WIDTH: Final = 60
_UNKNOWN: Final = {Coverage.NOT_KEPT: "not kept", Coverage.PENDING: "not counted"}

Row: TypeAlias = tuple[str, str]


def print_bot(health: BotHealth) -> None:
    sentence = f"User {health.user_id}'s bot is {health.status}"
    because = f": {'; '.join(health.findings)}" if health.findings else ""
    _print_report(Text(f"{sentence}{because}.", style=STYLES[health.status]), _bot_rows(health))


def print_fleet(health: FleetHealth | None, unhealthy: Sequence[UnhealthyBot]) -> None:
    if health is None:
        _print_report(Text("The bots have not been judged yet: no roll-up has come to its end."), ())
        return
    others = (health.degraded, "degraded"), (health.unhealthy, "unhealthy"), (health.suspended, "suspended")
    counts = [f"{number:,} {name}" for number, name in ((health.healthy, "healthy"), *others)]
    sentence = f"The fleet is {health.overall}: of {counted(health.bots, 'bot')} {listed(counts)}."
    _print_report(Text(sentence), _fleet_rows(health))
    if unhealthy:
        _print_unhealthy(unhealthy)


def _print_report(sentence: Text, rows: Iterator[Row] | tuple[()]) -> None:
    console = Console(markup=False, highlight=False)
    # A line for programs that read lines; on a terminal words are kept whole.
    console.print(sentence, soft_wrap=not console.is_terminal)
    console.print()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(table)
        console.print()


def _bot_rows(health: BotHealth) -> Iterator[Row]:
    if health.suspended_at is not None:
        yield "suspended", _suspension(health)
    yield "window", f"{counted(health.window_minutes, 'minute')}, up to {_time(health.as_of)}"
    yield from _request_rows(health)
    yield "response time", _response_time(health)
    yield "failures in a row", f"{health.consecutive_failures:,}"
    yield "last success", _time(health.last_success_at)
    yield "last failure", _last_failure(health)
    yield "rate limited", "yes, as the last call was answered" if health.is_rate_limited else "no"
    yield "breaker", health.breaker_state.replace("_", "-")


def _fleet_rows(health: FleetHealth) -> Iterator[Row]:
    yield "window", f"{counted(health.window_minutes, 'minute')}, up to {_time(health.as_of)}"
    yield from _request_rows(health)
    yield "response time", f"{_milliseconds(health.mean_ms)} in the mean"


def _request_rows(health: BotHealth | FleetHealth) -> Iterator[Row]:
    parts = (
        f"{health.successful_requests:,} succeeded",
        f"{health.failed_requests:,} failed",
        f"{health.refused_requests:,} refused",
    )
    yield "requests", f"{health.total_requests:,}: {', '.join(parts)}"
    yield "error rate", _percent(health.error_rate)


def _response_time(health: BotHealth) -> str:
    if health.mean_ms is None:
        return NOTHING
    return (
        f"{_milliseconds(health.average_ms)} at present, {_milliseconds(health.mean_ms)} in the mean; 50 % within "
        f"{_milliseconds(health.p50_ms)}, 95 % within {_milliseconds(health.p95_ms)}, 99 % within {_milliseconds(health.p99_ms)}"
    )


def _suspension(health: BotHealth) -> str:
    by = f" by {printable(health.suspended_by)}" if health.suspended_by else ""
    because = f": {quoted(health.suspension_reason, _ERROR_WIDTH)}" if health.suspension_reason else ""
    return f"since {_time(health.suspended_at)}{by}{because}"


def _last_failure(health: BotHealth) -> str:
    error = health.last_error_type
    return _time(health.last_failure_at) + (f", {shortened(error, _ERROR_WIDTH)}" if error else "")


def _print_unhealthy(bots: Sequence[UnhealthyBot]) -> None:
    console = Console(markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("user", "status", "since", "why"):
        table.add_column(name, justify="right" if name == "user" else "left", overflow="fold")
    for bot in bots:
        why = printable("; ".join(bot.findings))
        table.add_row(str(bot.user_id), bot.status, _time(bot.since), why, style=STYLES[bot.status])
    console.print(table)
    console.print()


def print_chart(history: Sequence[HistoryItem], bucket: Bucket) -> None:
    """Draw a line for each bucket: requests and response times up to the greatest, errors up to all calls."""
    most = max((item.total_requests or 0 for item in history), default=0)
    slowest = max((item.mean_ms or 0.0 for item in history), default=0.0)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(f"UTC, by {bucket}", no_wrap=True, style="dim")
    for name, color in (("requests", "cyan"), ("errors", "red"), ("mean time", "blue")):
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", width=BAR_WIDTH, style=color)
    for item in history:
        table.add_row(
            f"{item.started_at:%m-%d %H:%M}",
            *(_requests(item), Bar(most, 0, item.total_requests or 0)),
            *(_percent(item.error_rate), Bar(1, 0, item.error_rate or 0)),
            *(_milliseconds(item.mean_ms), Bar(slowest, 0, item.mean_ms or 0)),
        )
    Console(markup=False, highlight=False).print(table)


def _requests(item: HistoryItem) -> str:
    number = item.total_requests
    return _UNKNOWN[item.coverage] if number is None else f"{number:,}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1%}"


def _milliseconds(length: float | None) -> str:
    return NOTHING if length is None else f"{length:,.0f} ms"


def _time(at: datetime | None) -> str:
    return NOTHING if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"
