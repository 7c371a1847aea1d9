"""Appending that lasts, on a table that is full: `python -m tests.benchmarks.sustained --data-dir DIR`.

Ten million events of a hundred thousand users lie in thirty daily partitions, of which today's is one. Into it go half
a million more in each round, by turns as raw COPY of tuples and as the store does it. Each round has the same to begin
with and the same to do: today's partition is made anew with a day's share before it, since appending gets slower as its
index grows; there is a checkpoint before it, so that nobody writes another's pages, and one on the way, when half is
done. That one is in the figure. No others should come while it lasts; how many did is shown. Nor does autovacuum look
at today's partition: it comes once a minute, to whoever has his round then.

The first run fills the table, for minutes; in the same folder the next one finds it.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import statistics
import sys
from collections import defaultdict
from contextlib import AsyncExitStack

from breaker_store import BreakerStore
from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.event_log import PostgresEventLog
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import (
    EVENTS_A_PORTION,
    Feed,
    Sender,
    Timed,
    Traffic,
    copying_tuples,
    outcomes_alone,
    recording,
)
from tests.benchmarks.filling import DAYS, add_states, add_successes, days_until, find_or_make, tidy
from tests.benchmarks.measuring import Bar, Rounds, console, judge, show, take_turns

PORTIONS_A_ROUND = 25
EVENTS_A_ROUND = PORTIONS_A_ROUND * EVENTS_A_PORTION
ABOUT_ROUND_SECONDS = 5
COPY = "COPY of tuples"
OUTCOMES = "outcomes alone"
HEALTHY = "store, 0.1 % failing"
ILL = "store, 10 % failing"

# Checkpoints are forced; as production has them, minutes apart, they would come in some rounds and not in others.
SETTINGS = {"checkpoint_timeout": "1h", "max_wal_size": "32GB"}

_WRITTEN = "SELECT (pg_current_wal_lsn() - '0/0')::bigint"
_CHECKPOINTS = "SELECT num_timed + num_requested FROM pg_stat_checkpointer"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=120, help="about as long all append together")
    arguments = parser.parse_args()
    with open_server(arguments, SETTINGS) as server_url:
        return asyncio.run(measure(server_url, arguments))


async def measure(server_url: str, arguments: argparse.Namespace) -> int:
    database_url = await find_or_fill(server_url, arguments.rows, arguments.users)
    async with AsyncExitStack() as stack:
        connections = [await connect(database_url, command_timeout_seconds=300) for _ in range(2)]
        for each in connections:
            stack.push_async_callback(each.close)
        track = Track(connections[0], arguments.rows // DAYS, arguments.users)
        await track.make_today_anew()
        contestants = await prepare(stack, database_url, connections[1], arguments.users)
        count = max(round(arguments.seconds / ABOUT_ROUND_SECONDS / len(contestants)), 1)
        earlier = await track.count_checkpoints()
        rounds = await take_turns({name: track.round(name, way) for name, way in contestants.items()}, count)
        checkpoints = await track.count_checkpoints() - earlier
    show_rounds(rounds, track)
    console.print(f"{checkpoints} checkpoints, of which {track.forced} were forced: two for each round")
    return judge(
        [Bar.at_least(f"{name}, of {COPY}", rounds.ratio(COPY, name), 0.8) for name in (OUTCOMES, HEALTHY)]
    )


async def find_or_fill(server_url: str, rows: int, users: int) -> str:
    async def fill(_database_url: str, connection: Connection) -> None:
        await add_successes(connection, rows, users, days_until(today()))
        await add_states(connection, users)
        await tidy(connection)

    return await find_or_make(server_url, f"sustained_{rows}_{users}", fill)


def today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


async def prepare(
    stack: AsyncExitStack, database_url: str, connection: Connection, users: int
) -> dict[str, Timed]:
    healthy, ill = Traffic(users, failure_share=0.001), Traffic(users, failure_share=0.1)
    feed = Feed(healthy)
    log = PostgresEventLog(database_url, feed.registry.surroundings.clock)
    stack.push_async_callback(log.close)
    await log.open()
    stores = [await stack.enter_async_context(BreakerStore.open(database_url=database_url)) for _ in range(2)]
    return {
        COPY: copying_tuples(connection, feed),
        OUTCOMES: Sender(log).sending(feed, outcomes_alone),
        HEALTHY: recording(stores[0], healthy),
        ILL: recording(stores[1], ill),
    }


class Track:
    """On which each has the same to begin with and the same to do.

    Attributes:
        written: the bytes of its own log that the server wrote for an event, in each round.
        forced: how many checkpoints there had to be.

    """

    def __init__(self, server: Connection, rows_a_day: int, users: int) -> None:
        self.written: defaultdict[str, list[float]] = defaultdict(list)
        self.forced = 0
        self._server = server
        self._rows_a_day = rows_a_day
        self._users = users

    def round(self, name: str, way: Timed) -> Timed:
        """Make a way to append a portion into one that appends a round's events, and gives the seconds of one."""

        async def run() -> float:
            await self.make_today_anew()
            await self._checkpoint()
            begun_at = await self._server.fetchval(_WRITTEN)
            spent = await self._append(way)
            self.written[name].append((await self._server.fetchval(_WRITTEN) - begun_at) / EVENTS_A_ROUND)
            return spent / EVENTS_A_ROUND

        return run

    async def make_today_anew(self) -> None:
        """Put a day's share of the rows in place of what is in today's partition."""
        leaf = f"breaker_outcomes_{today():%Y%m%d}"
        if await self._server.fetchval("SELECT to_regclass($1) IS NOT NULL", leaf):
            await self._server.execute(
                f"ALTER TABLE breaker_outcomes DETACH PARTITION {leaf}; DROP TABLE {leaf}"
            )
        await add_successes(self._server, self._rows_a_day, self._users, [today()])
        await self._server.execute(f"ALTER TABLE {leaf} SET (autovacuum_enabled = off)")

    async def count_checkpoints(self) -> int:
        """Ask the server how many there have been."""
        await asyncio.sleep(1)  # it counts one a moment after it has ended
        return int(await self._server.fetchval(_CHECKPOINTS))

    async def _append(self, way: Timed) -> float:
        spent = sum([await way() for _ in range(PORTIONS_A_ROUND // 2)])
        checkpoint = asyncio.create_task(self._checkpoint())
        spent += sum([await way() for _ in range(PORTIONS_A_ROUND - PORTIONS_A_ROUND // 2)])
        await checkpoint
        return spent

    async def _checkpoint(self) -> None:
        self.forced += 1
        await self._server.execute("CHECKPOINT", timeout=300)


def show_rounds(rounds: Rounds, track: Track) -> None:
    rows = [
        [
            name,
            f"{1 / rounds.median(name):,.0f}",
            f"{rounds.ratio(COPY, name):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{statistics.median(track.written[name]):,.0f}",
        ]
        for name in rounds.figures
        if (ratios := rounds.ratios(COPY, name))
    ]
    columns = ["", "events/s", f"of {COPY}", "in single rounds", "bytes of WAL each"]
    show("sustained append, batches of 1,000", columns, rows)


if __name__ == "__main__":
    sys.exit(main())
