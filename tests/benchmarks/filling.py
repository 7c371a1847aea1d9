"""Fills a database with a long history in little time, so that its rows are as the store would have left them.

What is long, successes of the last 30 days and one breaker's refusals, goes straight into the tables. What is
intricate, the breakers that are not clean, goes through the store itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from breaker_store import BreakerStore, CircuitBreaker
from breaker_store.core.policy import Policy
from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.migrating import upgrade

DAYS = 30
NOT_CLEAN_EVERY = 100
REFUSALS_SHARE = 0.1
BREAKER_WITH_REFUSALS = 0

_SUCCESSES = """
INSERT INTO breaker_outcomes_{day:%Y%m%d}
    (occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, operation)
SELECT
    timestamptz '{day:%Y-%m-%d} 00:00:00+00' + number * interval '86400 seconds' / {count},
    number::bigint * 7919 % {breakers}, 1 + number % 4, {first} + number, 10000 + number % 90000, 0, 0, 1, 0, 'sendMessage'
FROM generate_series(0, {count} - 1) AS number
"""

_STATES = """
INSERT INTO breaker_states (user_id) SELECT generate_series(0, $1 - 1)
ON CONFLICT (user_id) DO NOTHING
"""

_REFUSALS = """
INSERT INTO breaker_events
    (occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, count)
SELECT opened_at + number * interval '1 microsecond', user_id, 5, number, 0, generation, era, 3, 0, 1
FROM breaker_states, generate_series(1, $2::bigint) AS number
WHERE user_id = $1
"""

_HISTORIES = """
INSERT INTO breaker_outcomes
    (occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, operation)
SELECT
    $1::date::timestamp AT TIME ZONE 'UTC' + (number + user_no::float8 / $4) * make_interval(days => $2) / $5,
    $3 + user_no, 6, 1 + number * $4 + user_no + $3, 10000 + number, 0, 0, 1, 0, 'sendMessage'
FROM generate_series(0, $5::integer - 1) AS number, generate_series(0, $4::integer - 1) AS user_no
ORDER BY 1
"""

_STATES_OF_RANGE = """
INSERT INTO breaker_states (user_id) SELECT generate_series($1::bigint, $2::bigint - 1)
"""

# One in a hundred is open, and one in a thousand half-open, at no regular places.
_STATES_NOT_ALL_CLOSED = """
INSERT INTO breaker_states (user_id, state)
SELECT user_id, CASE WHEN draw < 0.01 THEN 1 WHEN draw < 0.011 THEN 2 ELSE 0 END
FROM (SELECT user_id, random() AS draw FROM generate_series(0, $1::bigint - 1) AS user_id) AS drawn
"""

_COUNT_BREAKERS = "SELECT recount_breakers()"

_REMEMBER_FAILURES = """
UPDATE breaker_states
SET last_failure = CASE WHEN user_id % 1000 < $1::float8 * 1000 THEN jsonb_build_object(
    'id', '1-' || user_id, 'at', '2026-01-01T00:00:00.000000+00:00', 'error_type', 'ConnectionError',
    'error_message', 'Cannot connect to host 127.0.0.1:8443', 'operation', 'sendMessage', 'duration_us', 1000
) END
WHERE state = 0 AND tail_from IS NULL AND (last_failure IS NOT NULL OR user_id % 1000 < $1::float8 * 1000)
"""

_PLAIN_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'breaker_%'"


Fill = Callable[[str, Connection], Awaitable[None]]


async def find_or_fill(server_url: str, events: int, breakers: int) -> str:
    """Give the address of a database with this history, in the server's; one that is there already is used again."""

    async def fill(database_url: str, connection: Connection) -> None:
        refusals = int(events * REFUSALS_SHARE)
        today = dt.datetime.now(dt.UTC).date()
        await add_successes(connection, events - refusals, breakers, days_until(today - dt.timedelta(days=1)))
        await add_states(connection, breakers)
        await trouble_breakers(database_url, range(0, breakers, NOT_CLEAN_EVERY))
        await connection.execute(_REFUSALS, BREAKER_WITH_REFUSALS, refusals, timeout=300)
        await tidy(connection)

    return await find_or_make(server_url, f"startup_{events}_{breakers}", fill)


# Users of whom the histories are known; all others' events are there to be passed by.
TRIPPED_USERS = range(10_000_000, 10_002_000)
TRIPPED_EVENTS = 200
SPARSE_USERS = range(20_000_000, 20_002_000)
SPARSE_EVENTS = 3

_FAILURES_OF_TRIP = 5


async def find_or_fill_histories(server_url: str, events: int, breakers: int) -> str:
    """Give the address of a database with so many events in 30 days, and with histories of which the length is known.

    The tripped users have 200 events, spread over all days; at the end all of them failed at once until their breakers
    opened. The sparse users have three.
    """

    async def fill(database_url: str, connection: Connection) -> None:
        days = days_until(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1))
        await add_successes(connection, events, breakers, days)
        await add_states(connection, breakers)
        # The last of the two hundred is the transition.
        await _add_histories(connection, TRIPPED_USERS, TRIPPED_EVENTS - _FAILURES_OF_TRIP - 1, days)
        await _add_histories(connection, SPARSE_USERS, SPARSE_EVENTS, days)
        await trip_breakers(database_url, TRIPPED_USERS)
        await tidy(connection)

    return await find_or_make(server_url, f"histories_{events}_{breakers}", fill)


async def _add_histories(connection: Connection, users: range, events: int, days: Sequence[dt.date]) -> None:
    await connection.execute(_HISTORIES, days[0], len(days), users.start, len(users), events, timeout=300)
    await connection.execute(_STATES_OF_RANGE, users.start, users.stop)
    await connection.execute(_COUNT_BREAKERS)


async def find_or_fill_states(server_url: str, breakers: int) -> str:
    """Give the address of a database with so many breakers and no events; one in a hundred is not closed."""

    async def fill(_database_url: str, connection: Connection) -> None:
        await add_fleet(connection, breakers)
        await tidy(connection)

    return await find_or_make(server_url, f"states_{breakers}", fill)


async def add_fleet(connection: Connection, breakers: int) -> None:
    await connection.execute(_STATES_NOT_ALL_CLOSED, breakers, timeout=300)
    await connection.execute(_COUNT_BREAKERS, timeout=300)


async def find_or_make(server_url: str, name: str, fill: Fill) -> str:
    """Give the address of a database of this name in the server's; what was filled to the end is used again."""
    url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    server = await connect(server_url)
    try:
        filled = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1"
        if await server.fetchval(filled, name) != "filled":
            await server.execute(f"DROP DATABASE IF EXISTS {name}", timeout=60)
            await server.execute(f"CREATE DATABASE {name}", timeout=60)
            await upgrade(url)
            connection = await connect(url)
            try:
                await fill(url, connection)
            finally:
                await connection.close()
            await server.execute(f"COMMENT ON DATABASE {name} IS 'filled'")
        else:
            await upgrade(url)
    finally:
        await server.close()
    return url


def days_until(last: dt.date) -> list[dt.date]:
    return [last - dt.timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]


async def add_successes(connection: Connection, events: int, breakers: int, days: Sequence[dt.date]) -> None:
    """Spread events evenly over days, of which each gets its partition."""
    await connection.fetchval("SELECT ensure_outcome_partitions($1, $2)", days[0], days[-1])
    count = events // len(days)
    for number, day in enumerate(days):
        statement = _SUCCESSES.format(day=day, count=count, breakers=breakers, first=1 + number * count)
        await connection.execute(statement, timeout=300)


async def add_states(connection: Connection, breakers: int) -> None:
    await connection.execute(_STATES, breakers, timeout=300)


async def trouble_breakers(database_url: str, users: range) -> None:
    """Leave the users' breakers by turns open, half-open, and closed with one to four failures in a row."""
    # No wait: the half-open ones would have to sit it out.
    policy = Policy(timeout_seconds=0.000_001)
    async with BreakerStore.open(database_url=database_url, policy=policy) as store:
        for number, user_id in enumerate(users):
            breaker = store.registry.get_breaker(user_id)
            kind = number % 3
            await _fail(breaker, 5 if kind < 2 else 1 + number % 4)
            if kind == 1:
                await breaker.call(_succeed)


async def trip_breakers(database_url: str, users: range) -> None:
    """Have the users' calls fail, all for the same reason, until their breakers open."""
    async with BreakerStore.open(database_url=database_url) as store:
        for user_id in users:
            await _fail(store.registry.get_breaker(user_id), _FAILURES_OF_TRIP)


async def remember_failures(connection: Connection, share: float) -> None:
    """Let a share of the breakers that are closed and clean remember their last failure, and the others none."""
    await connection.execute(_REMEMBER_FAILURES, share, timeout=60)
    await connection.execute("VACUUM ANALYZE breaker_states", timeout=60)


async def tidy(connection: Connection) -> None:
    """Do what autovacuum would have done by and by."""
    for row in await connection.fetch(_PLAIN_TABLES):
        await connection.execute(f"VACUUM ANALYZE {row['relname']}", timeout=300)
    await connection.execute("CHECKPOINT", timeout=300)


async def _fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with suppress(ConnectionError):
            await breaker.call(_refuse_connection)


async def _refuse_connection() -> None:
    raise ConnectionError("Cannot connect to host 127.0.0.1:8443")


async def _succeed() -> None:
    pass
