"""What roll-ups cost: `python -m tests.benchmarks.rollups`.

A minute: a million events of a hundred thousand users lie in one minute that is over, and are rolled up while a store's
events are appended; by turns with the same appending alone. In it are the search in the ledger, the users' rows, the
fleet's, and the judgement of all bots. To be begun when some minutes of an hour are over, else an hour is counted too.

Sustained: appending for more than a minute at a time, by turns alone, and with a run every few seconds; so that each
round with roll-ups has a minute of its own events to count.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import statistics
import sys
import time
from contextlib import AsyncExitStack

from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.migrating import upgrade
from breaker_store.rolling_up import roll_up
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import EVENTS_A_PORTION, Feed, Sender, Timed, Traffic, outcomes_alone
from tests.benchmarks.measuring import Bar, Rounds, judge, show, take_turns

PORTIONS_ALONE = 10
RUN_EVERY_SECONDS = 3.0

# Checkpoints would come in some rounds and not in others.
SETTINGS = {"checkpoint_timeout": "1h", "max_wal_size": "32GB"}

_MINUTE = """
INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, operation, error_type
)
SELECT $1::timestamptz + number * interval '1 minute' / $2, floor(random() * $3)::bigint, $4, number,
    (10000 + exp(random() * 6) * 1000)::bigint, 0, 0, CASE WHEN number % 10 = 0 THEN 2 ELSE 1 END, 0, 'sendMessage',
    CASE WHEN number % 10 = 0 THEN 'ConnectionError' END
FROM generate_series(0, $2::integer - 1) AS number
"""
_BATCHES = """
INSERT INTO writer_batches (
    writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, previous_digest, earliest, latest
)
SELECT $2, number, number, number, 1, 1, 0, sha256('any'), CASE WHEN number > 1 THEN sha256('any') END, $1,
    $1::timestamptz + interval '59 s'
FROM generate_series(1, $3::integer) AS number
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=62, help="how long each sustained round appends")
    parser.add_argument("--sustained-rounds", type=int, default=3)
    arguments = parser.parse_args()
    with open_server(arguments, SETTINGS) as database_url:
        return asyncio.run(measure(database_url, arguments))


async def measure(database_url: str, arguments: argparse.Namespace) -> int:
    await upgrade(database_url)
    async with AsyncExitStack() as stack:
        connections = [await connect(database_url, command_timeout_seconds=600) for _ in range(2)]
        for each in connections:
            stack.push_async_callback(each.close)
        feed = Feed(Traffic(arguments.users, failure_share=0.1))
        log = PostgresEventLog(database_url, feed.registry.surroundings.clock)
        stack.push_async_callback(log.close)
        await log.open()
        append = Sender(log).sending(feed, outcomes_alone)
        minutes = Minutes(connections[0], connections[1], append, arguments.events, arguments.users)
        for number in range(arguments.rounds):
            await minutes.round(number + 1)
        show_minutes(minutes)
        sustained = Sustained(connections[1], append, arguments.seconds)
        rounds = await take_turns(
            {"alone": sustained.alone, "with roll-ups": sustained.with_roll_ups}, arguments.sustained_rounds
        )
    show_sustained(rounds)
    return judge(
        [
            Bar.at_most(
                f"{arguments.events:,} events of a minute", statistics.median(minutes.seconds), 10, " s"
            ),
            Bar.at_least("appending meanwhile, of alone", statistics.median(minutes.rates), 0.8),
            Bar.at_least(
                "sustained with roll-ups, of alone", rounds.ratio("with roll-ups", "alone") ** -1, 0.9
            ),
        ]
    )


class Minutes:
    """Minutes full of events, each rolled up beside an appender.

    Attributes:
        seconds: how long each took, with all that a run does.
        rates: what the appender managed meanwhile, as a part of what it managed alone just before.

    """

    def __init__(
        self, server: Connection, runner: Connection, append: Timed, events: int, users: int
    ) -> None:
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self._server, self._runner, self._append = server, runner, append
        self._events, self._users = events, users
        self._begun = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)

    async def round(self, number: int) -> None:
        await roll_up(self._runner)
        await self._fill(number)
        alone = sum([await self._append() for _ in range(PORTIONS_ALONE)]) / PORTIONS_ALONE
        running = asyncio.create_task(self._roll_up())
        beside: list[float] = []
        while not running.done():
            beside.append(await self._append())
        await running
        # The last portion went on when the run was over.
        self.rates.append(alone / statistics.mean(beside[:-1] or beside))

    async def _roll_up(self) -> None:
        begun = time.perf_counter()
        await roll_up(self._runner)
        self.seconds.append(time.perf_counter() - begun)

    async def _fill(self, number: int) -> None:
        """Store a minute of this hour, which is not over, in which nothing was appended."""
        begin = self._begun - dt.timedelta(minutes=number)
        writer_id = -number
        await self._server.execute(_MINUTE, begin, self._events, self._users, writer_id)
        await self._server.execute(_BATCHES, begin, writer_id, self._events // 1_000)
        await self._server.execute("CHECKPOINT")


class Sustained:
    """Appending for a while, alone or beside runs; a round gives the seconds of an event."""

    def __init__(self, runner: Connection, append: Timed, seconds: float) -> None:
        self._runner, self._append, self._seconds = runner, append, seconds

    async def alone(self) -> float:
        # What the others left to count is not for their next round.
        await roll_up(self._runner)
        return await self._append_for_a_while()

    async def with_roll_ups(self) -> float:
        await roll_up(self._runner)
        ended = asyncio.Event()
        running = asyncio.create_task(self._keep_rolling_up(ended))
        spent = await self._append_for_a_while()
        ended.set()
        await running
        return spent

    async def _append_for_a_while(self) -> float:
        until = time.monotonic() + self._seconds
        spent: list[float] = []
        while time.monotonic() < until:
            spent.append(await self._append())
        return statistics.mean(spent) / EVENTS_A_PORTION

    async def _keep_rolling_up(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            await roll_up(self._runner)
            await asyncio.sleep(RUN_EVERY_SECONDS)


def show_minutes(minutes: Minutes) -> None:
    rows = [
        [f"{seconds:.1f}", f"{rate:.2f}"]
        for seconds, rate in zip(minutes.seconds, minutes.rates, strict=False)
    ]
    show("a minute, in single rounds", ["seconds", "rate of appending, of alone"], rows)


def show_sustained(rounds: Rounds) -> None:
    ratios = [1 / ratio for ratio in rounds.ratios("with roll-ups", "alone")]
    sustained = [[name, f"{1 / rounds.median(name):,.0f}"] for name in rounds.figures]
    show(
        f"sustained, in single rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}",
        ["", "events/s"],
        sustained,
    )


if __name__ == "__main__":
    sys.exit(main())
