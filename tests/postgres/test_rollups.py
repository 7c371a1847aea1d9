"""Roll-ups are what counting the events gives, whatever came late, at once, or was killed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

import asyncpg
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as some

from breaker_store.core.buckets import Bucket
from breaker_store.core.events import Kind
from breaker_store.core.histogram import BUCKET_BEGINS_US
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.rollup_marks import MARK_NEW
from breaker_store.postgres.rollups import COUNT, SETTINGS, TABLES
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
from tests.postgres.test_plans import days_read, explain, rows_read

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


SUCCESS = (1, 3, 0, Kind.SUCCESS, 31_000, None, None)
FAILURE = (1, 3, 1, Kind.FAILURE, 62_000, "NetworkError", None)
TOMORROW = (1, 1_443, 0, Kind.SUCCESS, 31_000, None, None)


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
        # The server may take a moment to notice that a process is dead that held it.
        await self.connection.execute("SELECT FROM rollup_progress FOR UPDATE")
        assert (await roll_up(self.connection)).finished

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
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=some.lists(steps, min_size=2, max_size=12))
@example(history=[("begin", [SUCCESS]), ("store", [FAILURE]), ("run", None)])
@example(
    history=[("store", [SUCCESS]), ("drop", 0), ("store", [FAILURE, TOMORROW]), ("run", None), ("drop", 0)]
)
@example(history=[("store", [SUCCESS]), *(("kill", (number, True)) for number in range(2, 30, 4))])
async def test_roll_ups_are_what_counting_the_events_gives_whatever_happens(
    connect: Connect, database_url: str, owner: asyncpg.Connection, history: list[tuple[str, object]]
) -> None:
    """Late and long batches, transactions that end late, runs at once, runs that are killed, and days that are dropped."""
    lived = await History(connect, database_url, owner).open()
    for step, detail in history:
        await lived.take(step, detail)
    await lived.finish()

    for bucket in Bucket:
        expected = recount(bucket, lived.in_epochs())
        assert await read_rollups(lived.connection, bucket, lived.first) == expected
        assert await read_fleet(lived.connection, bucket, lived.first) == sum_of_fleet(expected)
    assert await lived.connection.fetchval("SELECT count(*) FROM rollup_marks") == 0


DAY = datetime(2011, 5, 3, tzinfo=FIRST_DAY.tzinfo)
A_MINUTE = timedelta(minutes=1)
MINUTE_ROWS = "SELECT user_id, started_at, successes FROM minute_rollups ORDER BY user_id, started_at"


async def store_successes(connection: asyncpg.Connection, *places: tuple[int, int]) -> None:
    """Store a success for each user and minute of a day."""
    made = [Stored(user_id, outcome(Kind.SUCCESS, at(DAY, minute))) for user_id, minute in places]
    await ensure_days(connection, [event.outcome.at for event in made])
    await store(connection, made)


async def test_what_is_not_over_waits(connection: asyncpg.Connection, database_url: str) -> None:
    now = await connection.fetchval("SELECT clock_timestamp()")
    made = [Stored(1, outcome(Kind.SUCCESS, microseconds(now + later))) for later in (-A_MINUTE, A_MINUTE)]
    await ensure_days(connection, [event.outcome.at for event in made])
    await store(connection, made)
    report = await roll_up_once(database_url)
    assert report.counted[Bucket.MINUTE] >= 1
    assert await connection.fetchval("SELECT max(started_at) FROM minute_rollups") <= now
    assert await connection.fetchval("SELECT max(started_at) > $1 FROM rollup_marks WHERE bucket = 0", now)


async def test_a_run_that_finds_nothing_new_changes_nothing(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await store_successes(connection, (1, 0))
    first = await roll_up_once(database_url)
    again = await roll_up_once(database_url)
    assert (first.changed, again.changed, sum(again.counted.values())) == (3, 0, 0)


async def test_a_late_event_changes_its_own_rows_alone(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await store_successes(connection, *((user_id, 0) for user_id in range(20)))
    await roll_up_once(database_url)
    await store_successes(connection, (7, 0))
    assert (await roll_up_once(database_url)).changed == 3


async def test_on_another_server_everything_is_counted_again(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """There transactions have other numbers, so that the snapshot says nothing, and new ones may be lower."""
    await store_successes(connection, (1, 0))
    await roll_up_once(database_url)
    await connection.execute("UPDATE rollup_progress SET server_id = 1, snapshot = '1000000:1000000:'")
    await store_successes(connection, (1, 1))
    assert (await roll_up_once(database_url)).counted[Bucket.MINUTE] == 2
    assert (await roll_up_once(database_url)).counted[Bucket.MINUTE] == 0


async def test_a_restored_ledgers_transactions_that_are_yet_to_come_are_not_marked_each_time(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str
) -> None:
    await roll_up_once(database_url)
    await store_successes(connection, (1, 0))
    await owner.execute(
        "ALTER TABLE writer_batches DISABLE TRIGGER USER; UPDATE writer_batches SET xid = '1000000'"
    )
    await owner.execute("UPDATE rollup_progress SET server_id = 1")
    assert (await roll_up_once(database_url)).counted[Bucket.MINUTE] == 1
    assert (await roll_up_once(database_url)).counted[Bucket.MINUTE] == 0


async def test_an_import_over_years_marks_the_days_alone_that_have_outcomes(
    connection: asyncpg.Connection, database_url: str
) -> None:
    made = [Stored(1, outcome(Kind.SUCCESS, at(DAY.replace(year=year), 0))) for year in (1990, 2020)]
    await ensure_days(connection, [event.outcome.at for event in made])
    await store(connection, made)
    report = await roll_up_once(database_url)
    assert report.counted == {Bucket.MINUTE: 1_440 + 1, Bucket.HOUR: 24 + 1, Bucket.DAY: 2}


async def test_a_day_that_is_gone_and_not_recorded_yet_keeps_what_was_counted(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str
) -> None:
    await store_successes(connection, (1, 0))
    await roll_up_once(database_url)
    before = await connection.fetch(MINUTE_ROWS)
    await owner.execute(f"ALTER TABLE breaker_outcomes DETACH PARTITION breaker_outcomes_{DAY:%Y%m%d}")
    await connection.execute("INSERT INTO rollup_marks (bucket, started_at) VALUES (0, $1)", DAY)
    await roll_up_once(database_url)
    assert await connection.fetch(MINUTE_ROWS) == before != []


async def test_an_erased_persons_roll_ups_have_the_pseudonym_and_no_error_types(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str
) -> None:
    made = [
        Stored(user_id, outcome(Kind.FAILURE, at(DAY, minute), error_type="NetworkError"))
        for user_id, minute in ((1, 0), (2, 0), (1, 1))
    ]
    await ensure_days(connection, [event.outcome.at for event in made])
    await store(connection, made)
    await roll_up_once(database_url)
    # One that came between reading the events and erasing them keeps its user.
    late = at(DAY, 1)
    await owner.execute("ALTER TABLE breaker_outcomes DISABLE TRIGGER USER")
    await owner.execute(
        f"ALTER TABLE breaker_outcomes_{DAY:%Y%m%d} DISABLE TRIGGER USER;"
        f" UPDATE breaker_events SET user_id = -9, error_type = NULL WHERE user_id = 1"
        f" AND occurred_at < '{to_datetime(late)}'; SELECT erase_rollups(1, -9)"
    )
    for bucket in Bucket:
        rows = await connection.fetch(f"SELECT user_id, error_types FROM {TABLES[bucket]}")
        assert {row["user_id"] for row in rows} == {-9, 2}
        assert {row["user_id"]: row["error_types"] for row in rows}[-9] is None
    fleets = await connection.fetch(
        "SELECT error_types ->> 'NetworkError' FROM fleet_rollups ORDER BY bucket, started_at"
    )
    assert [row[0] for row in fleets] == ["1", None, "1", "1"]
    await roll_up_once(database_url)
    rows = await connection.fetch("SELECT user_id, failures FROM minute_rollups ORDER BY started_at, user_id")
    assert [tuple(row) for row in rows] == [(-9, 1), (2, 1), (1, 1)]


async def test_absurd_durations_stop_nobodys_counting(
    connection: asyncpg.Connection, database_url: str
) -> None:
    made = [Stored(1, outcome(Kind.SUCCESS, at(DAY, minute), 2**63 - 1)) for minute in (0, 0, 1)]
    await ensure_days(connection, [event.outcome.at for event in made])
    await store(connection, made)
    assert (await roll_up_once(database_url)).finished
    for table in ("minute_rollups", "hour_rollups", "day_rollups", "fleet_rollups"):
        assert await connection.fetchval(f"SELECT max(duration_us) FROM {table}") == 2**63 - 1


async def test_roll_ups_pass_by_while_someone_holds_the_progress(
    owner: asyncpg.Connection, database_url: str
) -> None:
    async with owner.transaction():
        await owner.execute("SELECT FROM rollup_progress FOR UPDATE")
        assert not (await roll_up_once(database_url)).finished
    assert (await roll_up_once(database_url)).finished


async def test_a_minute_is_found_by_time_in_its_day_alone_and_new_batches_by_their_transactions(
    connection: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    """Whether or not anything is known yet of how the day's times are spread."""
    await owner.execute(FILL)
    async with connection.transaction():
        await connection.execute(SETTINGS)
        nodes = await explain(
            connection,
            COUNT[Bucket.MINUTE],
            DAY + 3 * A_MINUTE,
            DAY + 4 * A_MINUTE,
            0,
            BUCKET_BEGINS_US,
            A_MINUTE,
        )
    assert days_read(nodes) == {f"{DAY:%Y%m%d}"}
    assert 6_000 <= rows_read(nodes, "breaker_outcomes") <= 30_000
    assert any(
        node["Node Type"] == "Bitmap Index Scan" and "occurred_at" in node["Index Name"] for node in nodes
    )

    snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
    nodes = await explain(owner, MARK_NEW, 1, snapshot)
    assert "writer_batches_by_transaction" in {node.get("Index Name") for node in nodes}
    assert rows_read(nodes, "writer_batches") == 0


FILL = f"""
SELECT ensure_outcome_partitions('{DAY - timedelta(days=1)}', '{DAY + timedelta(days=1)}');
SELECT ensure_rollup_partitions('{DAY}', '{DAY}');

INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict)
SELECT '{DAY}'::timestamptz + number * interval '10 ms', number % 300, 1, number, 1, 0, 0, 1, 0
FROM generate_series(1, 60000) AS number;

SELECT brin_summarize_new_values('breaker_outcomes_{DAY:%Y%m%d}_occurred_at_idx');

INSERT INTO writer_batches (
    writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, earliest, latest, xid
)
SELECT number, 1, 1, 1, 1, 2, 0, sha256('any'), '{DAY}', '{DAY}', number::text::xid8
FROM generate_series(1, 700) AS number;
"""
