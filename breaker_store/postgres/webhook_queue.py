"""How far each webhook has come in the log, and which process delivers it.

The log itself is the queue: a webhook's row holds the position up to which all is delivered, and the end of the window
that is being delivered. It also holds a lease on the database's clock, so that one process delivers at a time: no lock
of a session, which a pooler between would lend to others. Each step is one statement, and changes nothing where the
lease has passed to another process.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

import asyncpg

from breaker_store.core.alerting import AlertKind, Notice, alert_kind, notice_of
from breaker_store.core.events import ENDINGS, TROUBLES, EventId
from breaker_store.errors import LogUnavailableError, StoreError
from breaker_store.ports import UserTransition
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.stored_events import list_kinds, read_transition

LEASE_SECONDS: Final = 30.0
"""How long after its death a process is still taken to deliver."""

PAGE: Final = 50
"""How many transitions are read at a time: others wait while they are being parsed."""

_ERROR_LIMIT: Final = 500

_ENDINGS: Final = list_kinds(ENDINGS)
_TROUBLES: Final = list_kinds(TROUBLES)

_PLACE = "position, writer_id, writer_seq, window_to, window_mark"

_BEGIN = f"""
INSERT INTO webhooks (name, holder, leased_until, position, writer_id, writer_seq)
SELECT $1, $2, clock_timestamp() + $3, log_position.last, newest.writer_id, newest.writer_seq
FROM log_position LEFT JOIN breaker_transitions AS newest ON newest.position = log_position.last
ON CONFLICT DO NOTHING
RETURNING {_PLACE}
"""

_CLAIM = f"""
UPDATE webhooks SET holder = $2, leased_until = clock_timestamp() + $3
WHERE name = $1 AND (holder = $2 OR leased_until <= clock_timestamp())
RETURNING {_PLACE}
"""

# What each step begins and ends with: $1 the name, $2 the holder, $3 the length of the lease.
_STEP = (
    "UPDATE webhooks SET leased_until = clock_timestamp() + $3{} WHERE name = $1 AND holder = $2 RETURNING "
    + _PLACE
)

_RENEW = _STEP.format("")
_OPEN_WINDOW = _STEP.format(", window_to = $4, window_mark = NULL")
_DELIVERED = _STEP.format(
    ", window_mark = $4, delivered = delivered + 1, last_delivered_at = clock_timestamp()"
)
_REFUSED = _STEP.format(", window_mark = $4, refused = refused + 1")
_TROUBLED = _STEP.format(", last_error = $4, last_error_at = clock_timestamp()")

_MOVE_ON = """
UPDATE webhooks SET leased_until = clock_timestamp() + $3,
    position = $4, window_to = NULL, window_mark = NULL, (writer_id, writer_seq) = (
        SELECT writer_id, writer_seq FROM breaker_transitions AS reached WHERE reached.position = $4
    )
WHERE name = $1 AND holder = $2
RETURNING position, writer_id, writer_seq, window_to, window_mark
"""

_RELEASE = "UPDATE webhooks SET leased_until = clock_timestamp() WHERE name = $1 AND holder = $2"

_LOOK = """
SELECT log_position.last, reached.writer_id, reached.writer_seq
FROM log_position LEFT JOIN breaker_transitions AS reached ON reached.position = $1
"""

# Of up to fifty causes only the last is told.
_COLUMNS = """
    user_id, writer_id, writer_seq, kind, occurred_at, version, generation, era, position, details_version,
    details || jsonb_build_object('causes', jsonb_path_query_array(details, '$.causes[last]')) AS details
"""

# Only what may be told, since most are probes of breakers that stay open; the core has the last word on it. What was
# imported is old, and told to nobody: a writer has one source, so its first batch says it.
_TOLD = """
position > $1 AND position <= $2
    AND (kind IN (12, 13, 14, 15, 17, 18) OR kind = 10 AND details ->> 'from' = 'closed')
    AND NOT EXISTS (
        SELECT FROM writer_batches AS batch
        WHERE batch.writer_id = breaker_transitions.writer_id AND batch.batch_no = 1 AND batch.source = 1
    )
"""

_ANY = f"SELECT EXISTS (SELECT FROM breaker_transitions WHERE {_TOLD}) AS any"

_TRANSITIONS = f"SELECT {_COLUMNS} FROM breaker_transitions WHERE {_TOLD} ORDER BY position LIMIT $3"

# What each of some recoveries ended: the first opening since the breaker was last well, and what was done by hand after
# it. Reopenings, of which there may be one a minute for weeks, are passed by in the index alone.
_ENDED = f"""
SELECT recovery.version AS ended_by, opening.*
FROM unnest($1::bigint[], $2::integer[]) AS recovery (user_id, version)
CROSS JOIN LATERAL (
    SELECT coalesce(max(version), 0) AS version FROM (
        SELECT version FROM breaker_transitions
        WHERE user_id = recovery.user_id AND version < recovery.version AND position IS NOT NULL
            AND kind IN ({_ENDINGS})
        ORDER BY version DESC
        LIMIT 1
    ) AS last_ending
) AS well
CROSS JOIN LATERAL (
    (
        SELECT version FROM breaker_transitions
        WHERE user_id = recovery.user_id AND version > well.version AND version < recovery.version
            AND position IS NOT NULL AND kind IN ({_TROUBLES})
        ORDER BY version
        LIMIT 1
    )
    UNION
    (
        SELECT version FROM breaker_transitions
        WHERE user_id = recovery.user_id AND version > well.version AND version < recovery.version
            AND position IS NOT NULL AND kind IN (14, 17)
        ORDER BY version
        LIMIT 5
    )
) AS found
CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM breaker_transitions
    WHERE user_id = recovery.user_id AND version = found.version AND position IS NOT NULL
) AS opening
ORDER BY opening.user_id, opening.version
"""


class LeaseLostError(StoreError):
    """Another process delivers this webhook by now, or it was told to begin anew."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a webhook has come.

    Attributes:
        position, event_id: the transition up to which all is delivered; 0 and None at the log's beginning.
        window_to: the last transition of the window that is being delivered, or None.
        window_mark: of the last message of that window that is done with, or None.

    """

    position: int
    event_id: EventId | None
    window_to: int | None
    window_mark: str | None


class WebhookQueue:
    """What a webhook has still to deliver, for the process that holds its lease; asked by one task.

    Steps raise LeaseLostError where the lease has passed to another process, and LogUnavailableError while the
    database is away.

    Attributes:
        place: how far the webhook has come, as of the last step.

    """

    def __init__(self, database_url: str, name: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.place = Place(0, None, None, None)
        self._database_url = database_url
        self._name = name
        self._lease_seconds = lease_seconds
        self._holder = uuid4()
        self._connection: Connection | None = None
        self._held_until = 0.0

    @property
    def held_seconds(self) -> float:
        """How long the lease still lasts, to be on the safe side; negative if it has lapsed."""
        return self._held_until - time.monotonic()

    async def claim(self) -> bool:
        """Take the lease, or keep it; tell whether this process has it. A new webhook begins at the log's end."""
        row = await self._lease(_CLAIM) or await self._lease(_BEGIN)
        return row is not None

    async def renew(self) -> None:
        await self._step(_RENEW)

    async def look(self) -> tuple[int, bool]:
        """Give the log's last position, and whether this is the history in which the webhook has come so far."""
        [row] = await self._fetch(_LOOK, self.place.position)
        is_known = _read_event_id(row) == self.place.event_id and (self.place.window_to or 0) <= row["last"]
        return row["last"], is_known

    async def has_news(self, until: int) -> bool:
        """Tell whether there may be something to tell up to a position."""
        [row] = await self._fetch(_ANY, self.place.position, until)
        return bool(row["any"])

    async def notices(self, until: int) -> list[Notice]:
        """Give what is to be told up to a position, in the order of positions."""
        found: list[Notice] = []
        after = self.place.position
        while rows := await self._fetch(_TRANSITIONS, after, until, PAGE):
            found += await self._notices_of([read_transition(row) for row in rows])
            after = rows[-1]["position"]
        return found

    async def open_window(self, until: int) -> None:
        """Settle up to which position the next messages tell; before the first of them is sent."""
        await self._step(_OPEN_WINDOW, until)

    async def record_delivered(self, mark: str) -> None:
        await self._step(_DELIVERED, mark)

    async def record_refused(self, mark: str) -> None:
        """Record that a message of the window is set aside."""
        await self._step(_REFUSED, mark)

    async def record_error(self, error: str) -> None:
        await self._step(_TROUBLED, error[:_ERROR_LIMIT])

    async def move_on(self, position: int) -> None:
        """Take everything up to a position for delivered, and end the window."""
        await self._step(_MOVE_ON, position)

    async def close(self) -> None:
        """Give the lease back, if this process has it, and part with the database."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if self.held_seconds > 0:
                await connection.execute(_RELEASE, self._name, self._holder)
            await connection.close()
        finally:
            connection.terminate()

    async def _notices_of(self, transitions: list[UserTransition]) -> list[Notice]:
        recoveries = [each for each in transitions if alert_kind(each.transition) is AlertKind.RECOVERED]
        ended = await self._ended_by(recoveries) if recoveries else {}
        notices = (
            notice_of(user_id, transition, tuple(ended.get((user_id, transition.version), ())))
            for user_id, transition in transitions
        )
        return [notice for notice in notices if notice is not None]

    async def _ended_by(self, recoveries: Iterable[UserTransition]) -> dict[tuple[int, int], list[Notice]]:
        users = [user_id for user_id, _ in recoveries]
        versions = [transition.version for _, transition in recoveries]
        ended: defaultdict[tuple[int, int], list[Notice]] = defaultdict(list)
        for row in await self._fetch(_ENDED, users, versions):
            notice = notice_of(*read_transition(row))
            if notice is not None:
                ended[row["user_id"], row["ended_by"]].append(notice)
        return ended

    async def _step(self, statement: str, *arguments: object) -> None:
        if await self._lease(statement, *arguments) is None:
            self._held_until = 0.0
            raise LeaseLostError(f"webhook {self._name} is another process's by now, or begins anew")

    async def _lease(self, statement: str, *arguments: object) -> asyncpg.Record | None:
        asked = time.monotonic()
        length = timedelta(seconds=self._lease_seconds)
        rows = await self._fetch(statement, self._name, self._holder, length, *arguments)
        if not rows:
            return None
        self._held_until = asked + self._lease_seconds
        self.place = _read_place(rows[0])
        return rows[0]

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._database_url, writing=True)
        connection = self._connection
        try:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        except BaseException as error:
            connection.terminate()
            self._connection = None
            if isinstance(error, UNREACHABLE):
                raise LogUnavailableError(described(error)) from error
            raise
        return rows


def _read_place(row: asyncpg.Record) -> Place:
    return Place(row["position"], _read_event_id(row), row["window_to"], row["window_mark"])


def _read_event_id(row: asyncpg.Record) -> EventId | None:
    return None if row["writer_id"] is None else EventId(row["writer_id"], row["writer_seq"])
