"""What an import asks the database: which lines are stored, and what is known of their users."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from breaker_store.core.events import CircuitState
from breaker_store.errors import StoreError
from breaker_store.ports import Source
from breaker_store.postgres.codec import STATES, microseconds, to_datetime
from breaker_store.postgres.connecting import Connection, connect

LINES_AT_ONCE: Final = 10_000
USERS_AT_ONCE: Final = 1_000

# The first number is that of all locks of this package, see the migrations.
_LOCK = "1651665779, 3"

# One event for each user: the ordered partitions are opened from the newest day backwards, and only until there is one.
_NEWEST_EVENTS = """
SELECT
    state.user_id, newest.occurred_at, newest.writer_id,
    (SELECT source FROM writer_batches WHERE writer_id = newest.writer_id AND batch_no = 1) AS source
FROM breaker_states AS state
LEFT JOIN LATERAL (
    (
        SELECT occurred_at, writer_id FROM breaker_outcomes
        WHERE user_id = state.user_id
        ORDER BY occurred_at DESC, writer_id DESC LIMIT 1
    )
    UNION ALL
    (
        SELECT occurred_at, writer_id FROM breaker_transitions
        WHERE user_id = state.user_id
        ORDER BY occurred_at DESC, writer_id DESC LIMIT 1
    )
    ORDER BY occurred_at DESC, writer_id DESC LIMIT 1
) AS newest ON true
WHERE state.user_id = ANY($1::bigint[])
"""

# The ledger is asked by a scalar, so that the plan is a look-up for each event and never a scan of the ledger.
_WITH_LATER_LIVE_EVENTS = """
SELECT line.user_id
FROM unnest($1::bigint[], $2::timestamptz[]) AS line (user_id, at)
CROSS JOIN LATERAL (
    SELECT FROM breaker_events AS event
    WHERE event.user_id = line.user_id AND event.occurred_at > line.at
        AND (SELECT source FROM writer_batches WHERE writer_id = event.writer_id AND batch_no = 1) <> $3
    LIMIT 1
) AS live
"""

_COUNT_STATES = """
SELECT state, count(*) FROM breaker_states WHERE user_id = ANY($1::bigint[]) GROUP BY state
"""

Item = TypeVar("Item")


class ImportRunningError(StoreError):
    """Another import into this database is running; try again when it has ended."""

    def __init__(self) -> None:
        super().__init__("another import into this database is running: try again when it has ended")


class NewestEvent(NamedTuple):
    """The newest stored event of a user, in the order of times, then of writers."""

    at_us: int
    writer_id: int
    is_imported: bool


@asynccontextmanager
async def import_alone(database_url: str) -> AsyncIterator[Connection]:
    """Give a connection that keeps other imports out of this database as long as it is open.

    Raises:
        ImportRunningError: one is running already.
        LogUnavailableError: the database can't be reached.

    """
    connection = await connect(database_url, writing=True)
    try:
        if not await connection.fetchval(f"SELECT pg_try_advisory_lock({_LOCK})"):
            raise ImportRunningError
        yield connection
    finally:
        connection.terminate()


async def find_stored_lines(connection: Connection, lines: Iterable[bytes]) -> set[bytes]:
    """Tell which of these lines are stored; a few thousand at once are well."""
    wanted = [UUID(bytes=line) for line in lines]
    rows = await connection.fetch("SELECT line FROM imported_lines WHERE line = ANY($1::uuid[])", wanted)
    return {row["line"].bytes for row in rows}


async def find_newest_events(
    connection: Connection, user_ids: Collection[int]
) -> dict[int, NewestEvent | None]:
    """Give the newest event of each user who has a breaker; None if retention has dropped all of them."""
    newest: dict[int, NewestEvent | None] = {}
    for some in divide(user_ids, USERS_AT_ONCE):
        for user_id, at, writer_id, source in await connection.fetch(_NEWEST_EVENTS, some):
            newest[user_id] = at and NewestEvent(microseconds(at), writer_id, source == Source.IMPORT)
    return newest


async def find_later_live_events(connection: Connection, times_us: Mapping[int, int]) -> set[int]:
    """Tell which users have events, other than imported ones, after the time that is given for each."""
    found: set[int] = set()
    for some in divide(times_us, USERS_AT_ONCE):
        times = [to_datetime(times_us[user_id]) for user_id in some]
        rows = await connection.fetch(_WITH_LATER_LIVE_EVENTS, some, times, int(Source.IMPORT))
        found.update(row["user_id"] for row in rows)
    return found


async def count_states(connection: Connection, user_ids: Collection[int]) -> Counter[CircuitState]:
    """Count the stored breakers of these users by their state."""
    states: Counter[CircuitState] = Counter()
    for some in divide(user_ids, LINES_AT_ONCE):
        for state, count in await connection.fetch(_COUNT_STATES, some):
            states[STATES[state]] += count
    return states


def divide(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut into lists of a size; the last may be shorter."""
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some
