"""How a bot is and was: the same from its events as they happen, from the log, from the roll-ups, and over HTTP."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

import asyncpg
import pytest

from breaker_store.core.buckets import Bucket, Span
from breaker_store.core.events import Kind, Outcome, Verdict
from breaker_store.core.health import DEFAULT_THRESHOLDS, MINUTE_US, Tally, tally
from breaker_store.postgres.bot_health import BotHealth, bot_health
from breaker_store.postgres.bot_history import bot_history
from breaker_store.postgres.bot_tallies import read_tally
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.fleet_history import FleetHistoryItem, fleet_history
from breaker_store.postgres.health_history import Coverage, HistoryItem, HistoryRange, figures
from breaker_store.postgres.reading import create_engine, reading
from breaker_store.postgres.rolled_up import read_rolled_up
from breaker_store.postgres.stored_events import read_outcome
from breaker_store.rolling_up import roll_up_once
from tests.postgres.rolling_up import Stored, ensure_days, outcome, store

USER, OTHER = 101, 102
HOUR_US = Bucket.HOUR.length_us
ERRORS = ["TimeoutError", "aiogram.exceptions.TelegramRetryAfter", None]
TOO_FAST = "http.TooManyRequests"
BATCH = 250

Keep = Callable[[Sequence[Outcome]], Awaitable[None]]


def draw(seed: int, span: Span, number: int) -> list[Outcome]:
    """Draw outcomes of all kinds in the order in which they happen, some of them at the same time."""
    chance = random.Random(seed)
    times = sorted(chance.randrange(span.begin, span.end) // 1_000 * 1_000 for _ in range(number))
    return [draw_outcome(chance, max(at, span.begin)) for at in times]


def draw_outcome(chance: random.Random, at: int) -> Outcome:
    kind = chance.choices([Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED], [7, 3, 1])[0]
    drawn = outcome(
        kind,
        at,
        chance.choice([None, 0, chance.randrange(10**6), chance.randrange(10**7)]),
        chance.choice(ERRORS) if kind is Kind.FAILURE else None,
        chance.choice([None, 3]) if kind is Kind.REJECTED else None,
        writer_id=chance.choice([1, 2]),
    )
    if kind is Kind.SUCCESS and chance.random() < 0.1:
        return replace(drawn, verdict=Verdict.NOT_COUNTED, error_type=TOO_FAST)
    return drawn


@pytest.fixture
async def keep(connection: asyncpg.Connection) -> Keep:
    """Store outcomes of one bot, and as many of another, in batches as their writers would."""
    await connection.execute("INSERT INTO breaker_states (user_id) VALUES ($1), ($2)", USER, OTHER)

    async def keep(outcomes: Sequence[Outcome]) -> None:
        await ensure_days(connection, [each.at for each in outcomes])
        for first in range(0, len(outcomes), BATCH):
            part = outcomes[first : first + BATCH]
            await store(connection, [Stored(USER, each) for each in part])
            await store(
                connection, [Stored(OTHER, replace(each, event_id=each.event_id)) for each in part[:1]]
            )

    return keep


async def read_now(connection: asyncpg.Connection) -> int:
    return microseconds(await connection.fetchval("SELECT clock_timestamp()"))


def window_at(now: int) -> Span:
    return Span(DEFAULT_THRESHOLDS.window_begin(now), Bucket.MINUTE.begin(now) + MINUTE_US)


def live(outcomes: Iterable[Outcome], window: Span) -> Tally:
    """Count as a process would while they happen, one by one."""
    kept = Tally()
    for each in sorted(outcomes, key=lambda each: (each.at, each.event_id)):
        if window.begin <= each.at < window.end:
            kept += Tally.of(each)
    return kept


async def rebuilt(connection: asyncpg.Connection, window: Span) -> Tally:
    """Fold the stored events."""
    rows = await connection.fetch(
        "SELECT * FROM breaker_outcomes WHERE user_id = $1 AND occurred_at >= $2 AND occurred_at < $3",
        USER, to_datetime(window.begin), to_datetime(window.end),
    )  # fmt: skip
    return tally(map(read_outcome, rows))


async def merged(connection: asyncpg.Connection, window: Span) -> Tally:
    """Add up the minutes that were rolled up."""
    rows = await connection.fetch(
        "SELECT * FROM minute_rollups WHERE user_id = $1 AND started_at >= $2 AND started_at < $3 ORDER BY started_at",
        USER, to_datetime(window.begin), to_datetime(window.end),
    )  # fmt: skip
    return sum(map(read_tally, rows), start=Tally())


async def queried(database_url: str) -> BotHealth:
    engine = create_engine(database_url)
    async with reading(engine) as connection:
        health = await bot_health(connection, USER)
    await engine.dispose()
    return health


async def fleets_history(database_url: str, wanted: HistoryRange) -> list[FleetHistoryItem]:
    engine = create_engine(database_url)
    async with reading(engine) as reader:
        items = await fleet_history(reader, wanted)
    await engine.dispose()
    return items


def without_latest(whole: Tally) -> Tally:
    """Leave out what no roll-up has, and what is exact but for the order of additions."""
    return replace(
        whole, weighted_us=0, weight_left=0, last_success_at=None, last_failure_at=None, last_error_type=None,
        is_rate_limited=False,
    )  # fmt: skip


def assert_same(found: Tally, expected: Tally) -> None:
    assert without_latest(found) == without_latest(expected)
    assert found.average_ms == pytest.approx(expected.average_ms)


def assert_tells(health: BotHealth, expected: Tally) -> None:
    assert health.average_ms == pytest.approx(expected.average_ms)
    names = (
        "total_requests", "successful_requests", "failed_requests", "refused_requests", "error_rate", "mean_ms", "p50_ms",
        "p95_ms", "p99_ms", "error_types",
    )  # fmt: skip
    assert tuple(getattr(health, name) for name in names) == figures(expected)
    assert health.consecutive_failures == expected.failure_run
    assert health.last_success_at == to_datetime(expected.last_success_at)
    assert health.last_failure_at == to_datetime(expected.last_failure_at)
    assert health.last_error_type == expected.last_error_type
    assert health.is_rate_limited is expected.is_rate_limited


@pytest.mark.parametrize("seed", range(2))
async def test_live_rebuilt_queried_and_rolled_up_health_agree(
    connection: asyncpg.Connection, database_url: str, keep: Keep, seed: int
) -> None:
    now = await read_now(connection)
    happened = draw(seed, Span(now - 40 * MINUTE_US, now), 4_000)
    await keep(happened[:3_000])
    await roll_up_once(database_url)
    await keep(happened[3_000:])
    for _ in range(2):
        health = await queried(database_url)
        window = window_at(microseconds(health.as_of))
        kept = live(happened, window)
        assert kept == await rebuilt(connection, window)
        assert_tells(health, kept)
        await roll_up_once(database_url)
    over = Span(window.begin, Bucket.MINUTE.begin(now))
    assert_same(await merged(connection, over), live(happened, over))


async def test_the_last_success_is_found_behind_answers_that_calls_come_too_fast(
    connection: asyncpg.Connection, database_url: str, keep: Keep
) -> None:
    now = await read_now(connection)
    well = outcome(Kind.SUCCESS, now - 40 * MINUTE_US)
    too_fast = [
        replace(outcome(Kind.SUCCESS, now - number), verdict=Verdict.NOT_COUNTED, error_type=TOO_FAST)
        for number in (3, 2, 1)
    ]
    await keep([well, *too_fast])
    health = await queried(database_url)
    assert (health.last_success_at, health.is_rate_limited) == (to_datetime(well.at), True)
    assert (health.status, health.successful_requests, health.failed_requests) == ("healthy", 3, 0)


async def history(database_url: str, wanted: HistoryRange) -> list[HistoryItem]:
    engine = create_engine(database_url)
    async with reading(engine) as connection:
        items = await bot_history(connection, USER, wanted)
    await engine.dispose()
    return items


def assert_history(items: list[HistoryItem], happened: list[Outcome], bucket: Bucket) -> None:
    found = defaultdict(list)
    for each in happened:
        found[bucket.begin(each.at)].append(each)
    for item in items:
        expected = tally(found.pop(microseconds(item.started_at), []))
        told = (
            item.total_requests, item.successful_requests, item.failed_requests, item.refused_requests, item.error_rate,
            item.mean_ms, item.p50_ms, item.p95_ms, item.p99_ms, item.error_types,
        )  # fmt: skip
        assert told == figures(expected)
    assert not found


@pytest.mark.parametrize(("bucket", "length"), [(Bucket.MINUTE, 5), (Bucket.HOUR, 60), (Bucket.DAY, 80)])
async def test_a_history_is_what_the_events_add_up_to_however_much_is_rolled_up(
    connection: asyncpg.Connection, database_url: str, keep: Keep, bucket: Bucket, length: int
) -> None:
    now = await read_now(connection)
    whole = Span(now - length * HOUR_US, now)
    wanted = HistoryRange(bucket, since=to_datetime(whole.begin))
    happened: list[Outcome] = []
    for seed in range(2):
        late_or_new = draw(seed, whole, 400)
        happened += late_or_new
        await keep(late_or_new)
        assert_history(await history(database_url, wanted), happened, bucket)
        await roll_up_once(database_url)
        items = await history(database_url, wanted)
        assert_history(items, happened, bucket)
    assert {item.coverage for item in items[:-1]} == {Coverage.COMPLETE}
    assert items[-1].coverage is Coverage.RUNNING


async def drop_day(owner: asyncpg.Connection, at: int, drops: int) -> None:
    day = to_datetime(at)
    await owner.execute(f"DROP TABLE breaker_outcomes_{day:%Y%m%d}")
    await owner.execute(
        "INSERT INTO dropped_partitions (outcomes, bytes, day, drops) VALUES (1, 1, $1, $2)",
        day.date(),
        drops,
    )


@pytest.mark.parametrize("bucket", Bucket)
async def test_what_was_dropped_is_told_from_the_roll_ups_with_what_came_late_on_top(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str, keep: Keep, bucket: Bucket
) -> None:
    midnight = Bucket.DAY.begin(await read_now(connection)) - 3 * Bucket.DAY.length_us
    whole = Span(midnight + 5 * HOUR_US, midnight + 8 * HOUR_US)
    wanted = HistoryRange(bucket, to_datetime(whole.begin), to_datetime(whole.end))
    happened: list[Outcome] = []
    for drops in (1, 2):
        late = draw(drops, whole, 300)
        happened += late
        await keep(late)
        assert_history(await history(database_url, wanted), happened, bucket)
        await roll_up_once(database_url)
        assert_history(await history(database_url, wanted), happened, bucket)
        await drop_day(owner, midnight, drops)
        assert_history(await history(database_url, wanted), happened, bucket)


async def test_minutes_that_are_not_kept_are_told_from_the_events(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str, keep: Keep
) -> None:
    begin = Bucket.DAY.begin(await read_now(connection)) - 3 * Bucket.DAY.length_us
    happened = draw(1, Span(begin, begin + HOUR_US), 200)
    await keep(happened)
    await roll_up_once(database_url)
    await owner.execute(f"DROP TABLE minute_rollups_{to_datetime(begin):%Y%m%d}")
    wanted = HistoryRange(Bucket.MINUTE, to_datetime(begin), to_datetime(begin + HOUR_US))
    assert_history(await history(database_url, wanted), happened, Bucket.MINUTE)
    await drop_day(owner, begin, 1)
    assert {item.coverage for item in await history(database_url, wanted)} == {Coverage.NOT_KEPT}


async def drop_rollups(owner: asyncpg.Connection, bucket: Bucket, at: int) -> None:
    """Drop as `drop_rollups` does in the database, of the day or the month."""
    day = to_datetime(at).date()
    kinds = {
        Bucket.MINUTE: ("minutes", f"{day:%Y%m%d}"),
        Bucket.HOUR: ("hours", f"{day:%Y%m}"),
        Bucket.DAY: ("days", ""),
    }
    kind, name = kinds[bucket]
    await owner.execute(f"DROP TABLE {bucket}_rollups_{name}" if name else "DELETE FROM day_rollups")
    await owner.execute("DELETE FROM fleet_rollups WHERE bucket = $1", list(Bucket).index(bucket))
    await owner.execute(
        "INSERT INTO dropped_rollups (kind, first_day, last_day) VALUES ($1, $2, $2)", kind, day
    )


@pytest.mark.parametrize("bucket", Bucket)
async def test_what_comes_late_for_dropped_roll_ups_is_not_taken_for_all_that_happened(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str, keep: Keep, bucket: Bucket
) -> None:
    begin = Bucket.DAY.begin(await read_now(connection)) - 3 * Bucket.DAY.length_us
    happened = draw(1, Span(begin, begin + HOUR_US), 200)
    await keep(happened)
    await roll_up_once(database_url)
    await drop_rollups(owner, bucket, begin)
    late = draw(2, Span(begin + 2 * HOUR_US, begin + 2 * HOUR_US + 1_000), 1)
    await keep(late)
    await roll_up_once(database_url)
    wanted = HistoryRange(bucket, to_datetime(begin), to_datetime(begin + 3 * HOUR_US))
    assert_history(await history(database_url, wanted), happened + late, bucket)


@pytest.mark.parametrize("bucket", Bucket)
async def test_dropped_roll_ups_of_the_fleet_are_told_as_not_kept(
    connection: asyncpg.Connection, owner: asyncpg.Connection, database_url: str, keep: Keep, bucket: Bucket
) -> None:
    begin = Bucket.DAY.begin(await read_now(connection)) - 3 * Bucket.DAY.length_us
    await keep(draw(1, Span(begin, begin + HOUR_US), 200))
    await roll_up_once(database_url)
    await drop_rollups(owner, bucket, begin)
    items = await fleets_history(
        database_url, HistoryRange(bucket, to_datetime(begin), to_datetime(begin + HOUR_US))
    )
    assert {(item.coverage, item.total_requests) for item in items} == {(Coverage.NOT_KEPT, None)}


async def test_what_is_final_is_not_counted_again(
    connection: asyncpg.Connection, database_url: str, keep: Keep
) -> None:
    """Otherwise all would be right, and slow."""
    now = await read_now(connection)
    await keep(draw(1, Span(now - 5 * HOUR_US, now), 500))
    await roll_up_once(database_url)
    span = Span(Bucket.HOUR.begin(now) - 5 * HOUR_US, Bucket.HOUR.begin(now))
    rolled_up = await read_rolled_up(connection, now, span)
    assert rolled_up.open_starts(Bucket.HOUR, span) == []
    await connection.execute("UPDATE hour_rollups SET successes = successes + 1000 WHERE user_id = $1", USER)
    found = await history(database_url, HistoryRange(Bucket.HOUR, to_datetime(span.begin)))
    assert all((item.successful_requests or 0) >= 1_000 for item in found[:5])


@pytest.mark.parametrize("bucket", Bucket)
async def test_the_fleets_history_is_the_sum_of_all_bots(
    connection: asyncpg.Connection, database_url: str, keep: Keep, bucket: Bucket
) -> None:
    begin = Bucket.DAY.begin(await read_now(connection)) - 3 * Bucket.DAY.length_us
    happened = draw(1, Span(begin, begin + 2 * HOUR_US), 200)
    await keep(happened)
    await roll_up_once(database_url)
    until = to_datetime(begin + 2 * HOUR_US)
    items = await fleets_history(database_url, HistoryRange(bucket, to_datetime(begin), until))
    assert {item.coverage for item in items} == {Coverage.COMPLETE}
    # One batch, and so one event of the other bot.
    assert sum(item.total_requests or 0 for item in items) == tally(happened + happened[:1]).requests
    assert items[0].bots == 2
