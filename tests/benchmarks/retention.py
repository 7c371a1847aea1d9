"""How long an append waits while a day is dropped: `python -m tests.benchmarks.retention`.

Two writers append without a pause, one of them batches of a thousand and the other single outcomes, and each append is
timed. By turns nothing else happens for a while, and in the middle of it a day of ten million outcomes is dropped. What
an append takes on a busy machine without that is shown beside it, and how long an append was seen to wait for a lock: the
rest of what it takes is the machine's, whose disk deletes some gigabytes once the locks are gone.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from breaker_store.core.retention import Kept
from breaker_store.ports import Batch
from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.migrating import upgrade
from breaker_store.postgres.retention import drop, list_due, set_policy
from breaker_store.runtime.clock import Clock
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import Feed, Sender, Traffic
from tests.benchmarks.filling import add_states, add_successes, tidy
from tests.benchmarks.measuring import Bar, judge, percentile, show

USERS = 100_000
AGO_DAYS = 60
TRAFFIC = Traffic(USERS, failure_share=0.01)
SECONDS = 6.0
BATCHES_PREPARED = 400
PIECES = 20
SHOWN = (50, 99, 99.9, 100)

_OLD_BATCH = """
INSERT INTO writer_batches
    (writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, earliest, latest, recorded_at)
SELECT $2, 1, 1, $3, $3::bigint::integer, 1, 0, sha256('old'), at, at + interval '23 hours', at + interval '23 hours'
FROM (SELECT $1::date::timestamp AT TIME ZONE 'UTC') AS day (at)
"""
_LOCK_WAIT = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8
FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND mode = 'RowExclusiveLock'
"""
_ROLLED_UP = """
UPDATE rollup_progress SET snapshot = pg_current_snapshot(), server_id = system_identifier FROM pg_control_system()
"""


class Timed(NamedTuple):
    """When something began and ended, in nanoseconds."""

    begun: int
    ended: int

    @property
    def length(self) -> int:
        return self.ended - self.begun

    def overlaps(self, other: Timed) -> bool:
        return self.begun < other.ended and self.ended > other.begun


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--rows", type=int, default=10_000_000, help="outcomes of a day")
    parser.add_argument("--days", type=int, default=3, help="how many are dropped, one after the other")
    arguments = parser.parse_args()
    with open_server(arguments) as database_url:
        return asyncio.run(measure(database_url, arguments.rows, arguments.days))


async def measure(database_url: str, rows: int, day_count: int) -> int:
    await upgrade(database_url)
    async with AsyncExitStack() as stack:
        connection = await connect(database_url, command_timeout_seconds=3_600)
        stack.push_async_callback(connection.close)
        observer = await connect(database_url)
        stack.push_async_callback(observer.close)
        await fill(connection, rows, day_count)
        await set_policy(database_url, Kept.OUTCOMES, 30, imports=False, actor=None)
        writers = [Writer(await open_log(stack, database_url), divide) for divide in (together, apart)]
        times: dict[str, list[Timed]] = defaultdict(list)
        drops: list[Timed] = []
        lock_waits: list[float] = []
        for _ in range(day_count):
            times["without"] += await append_during(writers, asyncio.sleep(SECONDS))
            watching = asyncio.create_task(watch_locks(observer, lock_waits))
            found = await append_during(writers, drop_oldest(connection, drops))
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            times["around"] += found
            times["during"] += [each for each in found if each.overlaps(drops[-1])]
    rows_shown = [
        [f"{name} a drop", f"{len(found):,}", *(f"{milliseconds(found, percent):,.1f}" for percent in SHOWN)]
        for name, found in times.items()
    ]
    show("an append, in ms", ["", "appends", "median", "p99", "p99.9", "longest"], rows_shown)
    print(f"dropping took {', '.join(f'{each.length / 1e9:.2f} s' for each in drops)}")
    return judge(
        [
            Bar.at_most("longest an append waited for a lock", max(lock_waits) * 1_000, 100, " ms"),
            Bar.at_most("longest append during a drop", milliseconds(times["during"], 100), 100, " ms"),
        ]
    )


async def watch_locks(observer: Connection, lock_waits: list[float]) -> None:
    """Look again and again for how long an append has been waiting, until cancelled."""
    while True:
        lock_waits.append(await observer.fetchval(_LOCK_WAIT))
        await asyncio.sleep(0.003)


def milliseconds(found: Sequence[Timed], percent: float) -> float:
    return percentile([each.length for each in found], percent) / 1e6


async def fill(connection: Connection, rows: int, day_count: int) -> None:
    today = dt.datetime.now(dt.UTC).date()
    days = [today - dt.timedelta(days=AGO_DAYS + number) for number in range(day_count)]
    for number, day in enumerate(days, 1):
        for _ in range(PIECES):
            await add_successes(connection, rows // PIECES, USERS, [day])
        await connection.execute(_OLD_BATCH, day, number, rows)
    await add_states(connection, USERS)
    await tidy(connection)
    await connection.execute(_ROLLED_UP)


async def drop_oldest(connection: Connection, drops: list[Timed]) -> None:
    await asyncio.sleep(SECONDS / 3)
    [span, *_] = await list_due(connection)
    await connection.execute(_ROLLED_UP)
    begun = time.perf_counter_ns()
    why = await drop(connection, span, "the benchmark")
    drops.append(Timed(begun, time.perf_counter_ns()))
    assert why is None, why
    await asyncio.sleep(SECONDS / 3)


async def open_log(stack: AsyncExitStack, database_url: str) -> PostgresEventLog:
    log = PostgresEventLog(database_url, Clock())
    stack.push_async_callback(log.close)
    await log.open()
    return log


Divide = Callable[[Batch], list[Batch]]


def together(batch: Batch) -> list[Batch]:
    return [batch]


def apart(batch: Batch) -> list[Batch]:
    """Make a batch of each outcome."""
    return [
        replace(
            batch,
            first_seq=row[2],
            last_seq=row[2],
            earliest=row[0],
            latest=row[0],
            outcomes=[row],
            transitions=(),
            marks=(),
            newcomers={},
        )
        for row in batch.outcomes
    ]


class Writer:
    """Appends what was made beforehand: nothing else may keep this process from noticing that an append is over."""

    def __init__(self, log: PostgresEventLog, divide: Divide) -> None:
        self._feed = Feed(TRAFFIC)
        self._sender = Sender(log)
        self._divide = divide
        self._waiting: list[Batch] = []

    async def prepare(self) -> None:
        while len(self._waiting) < BATCHES_PREPARED:
            for batch in await self._feed.batches():
                self._waiting += self._divide(batch)

    async def append_until(self, over: asyncio.Event, times: list[Timed]) -> None:
        while self._waiting and not over.is_set():
            batch = self._waiting.pop(0)
            begun = time.perf_counter_ns()
            await self._sender._send(batch)
            times.append(Timed(begun, time.perf_counter_ns()))


async def append_during(writers: Sequence[Writer], meanwhile: Coroutine[Any, Any, None]) -> list[Timed]:
    """Have all writers append as long as something lasts; give when each append was under way."""
    for writer in writers:
        await writer.prepare()
    over = asyncio.Event()
    times: list[Timed] = []
    tasks = [asyncio.create_task(writer.append_until(over, times)) for writer in writers]
    await meanwhile
    over.set()
    await asyncio.gather(*tasks)
    return times


if __name__ == "__main__":
    sys.exit(main())
