"""Roll-ups are what counting the events gives, whatever came late, at once, or was killed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import asyncpg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from breaker_store.core.events import Kind
from breaker_store.postgres.rollups import Length
from breaker_store.rolling_up import roll_up, roll_up_once
from tests.postgres.rolling_up import (
    FIRST_DAY,
    KilledError,
    MortalConnection,
    Stored,
    at,
    ensure_days,
    outcome,
    read_fleet,
    read_rollups,
    recount,
    store,
    sum_of_fleet,
)

Connect = Callable[..., Awaitable[asyncpg.Connection]]

DAYS = 2
# Each example has days of its own: the log can't be emptied.
EXAMPLES = itertools.count()

MINUTES = [0, 1, 2, 3, 59, 60, 1_439, 1_440, 1_441, 2_879]
USERS = [1, 2, -(2**62)]
DURATIONS = (
    some.none() | some.sampled_from([0, 1, 2, 3, 1_000, 31_000, 3_000_000, 2**42]) | some.integers(0, 10**7)
)
ERRORS = [None, "NetworkError", "aiogram.exceptions.TelegramRetryAfter", "O\"Neill\\'s Ärger"]


@some.composite
def events(draw: some.DrawFn) -> tuple[int, int, int, Kind, int | None, str | None, int | None]:
    kind = draw(some.sampled_from([Kind.SUCCESS, Kind.FAILURE, Kind.FAILURE, Kind.REJECTED]))
    return (
        draw(some.sampled_from(USERS)),
        draw(some.sampled_from(MINUTES)),
        draw(some.sampled_from([0, 1, 1, 59_999_999])),
        kind,
        draw(DURATIONS),
        draw(some.sampled_from(ERRORS)),
        draw(some.sampled_from([None, 1, 7])) if kind is Kind.REJECTED else None,
    )


batches = some.lists(events(), min_size=1, max_size=6)
steps = some.one_of(
    some.tuples(some.just("store"), batches),
    some.tuples(some.just("begin"), batches),
    some.tuples(some.just("commit"), some.none()),
    some.tuples(some.just("run"), some.none()),
    some.tuples(some.just("run_twice"), some.none()),
    some.tuples(some.just("kill"), some.tuples(some.integers(1, 60), some.booleans())),
    some.tuples(some.just("drop"), some.integers(0, DAYS - 1)),
)


class History:
    """What happens to a few days, and what was stored of it between one drop of a day and the next."""

    def __init__(self, connect: Connect, database_url: str, owner: asyncpg.Connection) -> None:
        self._connect, self._database_url, self._owner = connect, database_url, owner
        self.first = FIRST_DAY + timedelta(days=DAYS * next(EXAMPLES))
        self.epochs: dict[int, list[list[Stored]]] = {day: [[]] for day in range(DAYS)}
        self._begun: list[tuple[asyncpg.Connection, asyncpg.transaction.Transaction]] = []

    async def open(self) -> History:
        self.connection = await self._connect(self._database_url)
        return self

    async def take(self, step: str, detail: object) -> None:
        await getattr(self, step)(detail)

    async def store(self, batch: list[tuple]) -> None:
        await store(self.connection, await self._made(batch))

    async def begin(self, batch: list[tuple]) -> None:
        made = await self._made(batch)
        connection = await self._connect(self._database_url)
        transaction = connection.transaction()
        await transaction.start()
        await store(connection, made)
        self._begun.append((connection, transaction))

    async def commit(self, _detail: object = None) -> None:
        if self._begun:
            connection, transaction = self._begun.pop(0)
            await transaction.commit()
            await connection.close()

    async def run(self, _detail: object = None) -> None:
        await roll_up(self.connection)

    async def run_twice(self, _detail: object) -> None:
        await asyncio.gather(*(roll_up_once(self._database_url) for _ in range(2)))

    async def kill(self, when: tuple[int, bool]) -> None:
        mortal = await asyncpg.connect(self._database_url, connection_class=MortalConnection)
        mortal.lives_for, mortal.dies_after_it = when
        with suppress(KilledError, asyncpg.InterfaceError):
            await roll_up(mortal)
        mortal.terminate()

    async def drop(self, day: int) -> None:
        """Drop a day whose roll-ups are final, as retention does."""
        await self.finish()
        date = (self.first + timedelta(days=day)).date()
        async with self._owner.transaction():
            await self._owner.execute("SELECT FROM rollup_progress FOR UPDATE")
            await self._owner.execute(f"DROP TABLE IF EXISTS breaker_outcomes_{date:%Y%m%d}")
            await self._owner.execute(
                "INSERT INTO dropped_partitions (day, drops, outcomes, bytes) VALUES ($1, $2, 0, 0)",
                date,
                len(self.epochs[day]),
            )
        self.epochs[day].append([])

    async def finish(self) -> None:
        while self._begun:
            await self.commit()
        report = await roll_up(self.connection)
        assert report.finished

    async def _made(self, batch: list[tuple]) -> list[Stored]:
        made = []
        for user_id, minute, us, kind, duration_us, error_type, count in batch:
            stored = Stored(
                user_id, outcome(kind, at(self.first, minute, us), duration_us, error_type, count)
            )
            self.epochs[minute // 1_440][-1].append(stored)
            made.append(stored)
        await ensure_days(self.connection, [event.outcome.at for event in made])
        return made

    def in_epochs(self) -> list[tuple[int, list[Stored]]]:
        return [(drops, epoch) for epochs in self.epochs.values() for drops, epoch in enumerate(epochs)]


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=some.lists(steps, min_size=2, max_size=12))
async def test_roll_ups_are_what_counting_the_events_gives_whatever_happens(
    connect: Connect, database_url: str, owner: asyncpg.Connection, history: list[tuple[str, object]]
) -> None:
    """Late and long batches, transactions that end late, runs at once, runs that are killed, and days that are dropped."""
    lived = await History(connect, database_url, owner).open()
    for step, detail in history:
        await lived.take(step, detail)
    await lived.finish()

    for length in Length:
        expected = recount(length, lived.in_epochs())
        assert await read_rollups(lived.connection, length, lived.first) == expected
        assert await read_fleet(lived.connection, length, lived.first) == sum_of_fleet(expected)
    assert await lived.connection.fetchval("SELECT count(*) FROM rollup_marks") == 0
