"""The check that transitions are those that were stored, in their order, without a gap.

The links are worked out here, from the bytes of what is stored: a function in the database could be another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import date
from typing import Final

from breaker_store.core.events import EventId
from breaker_store.postgres.codec import UNUSED_BY_TRANSITIONS
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.heads import Head, read_head

GENESIS: Final = bytes(32)
_ROWS_AT_ONCE: Final = 2_000

LINK_COLUMNS: Final = """
    position, writer_id, writer_seq, chain, private_digest,
    timestamptz_send(occurred_at) || int8send(writer_id) || int8send(writer_seq) || int4send(generation)
        || int4send(era) || int4send(version) || int2send(kind) || int2send(details_version)
        || convert_to((details - '{reason,last_failure,causes,suspension}'::text[])::text, 'UTF8') AS countable,
    CASE WHEN private_digest IS NULL THEN
        salt || int8send(user_id) || convert_to(
            (
                jsonb_build_array(details -> 'reason', details -> 'last_failure', details -> 'causes')
                || CASE WHEN details ? 'suspension' THEN jsonb_build_array(details -> 'suspension') ELSE '[]' END
            )::text,
            'UTF8'
        )
    END AS private,
    user_id < -4611686018427387904 AND details ->> 'reason' IS NULL AND details #>> '{suspension,reason}' IS NULL
        AND NOT jsonb_path_exists(details, '$.**.error_message ? (@ != null)') AS is_erased
"""
"""What a transition's link is worked out from."""

_CHAIN: Final = f"SELECT {LINK_COLUMNS} FROM breaker_transitions WHERE position IS NOT NULL ORDER BY position"

# In no digest: what is in them was put in later. One that lost is no link.
_UNUSED: Final = f"""
SELECT writer_id, writer_seq FROM breaker_transitions
WHERE num_nonnulls({", ".join(UNUSED_BY_TRANSITIONS)}) > 0
    OR (position IS NULL AND num_nonnulls(chain, salt, private_digest) > 0)
ORDER BY writer_id, writer_seq
"""

# What a writer told to be missing may be a cause, unless it is a number of a batch that has all of its own.
_MISSING_CAUSES: Final = """
WITH cause AS MATERIALIZED (
    SELECT
        position, user_id, document ->> 'id' AS id, (document ->> 'at')::timestamptz AS at,
        split_part(document ->> 'id', '-', 1)::bigint AS writer_id,
        substr(document ->> 'id', strpos(document ->> 'id', '-') + 1)::bigint AS writer_seq
    FROM breaker_transitions
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN jsonb_typeof(details -> 'causes') = 'array' THEN details -> 'causes' ELSE '[]' END
    ) AS document
    WHERE position IS NOT NULL
)
SELECT cause.position, cause.id
FROM cause
LEFT JOIN breaker_outcomes AS outcome
    ON outcome.writer_id = cause.writer_id AND outcome.writer_seq = cause.writer_seq AND outcome.kind = 2
WHERE outcome.writer_id IS NULL
    AND cause.writer_seq > 0
    AND (cause.at AT TIME ZONE 'UTC')::date <> ALL ($1::date[])
    AND (
        NOT EXISTS (SELECT FROM log_gaps WHERE log_gaps.writer_id = cause.writer_id AND failures + unknown > 0)
        OR EXISTS (
            SELECT FROM writer_batches AS batch
            WHERE batch.writer_id = cause.writer_id AND cause.writer_seq BETWEEN first_seq AND last_seq
                AND event_count = last_seq - first_seq + 1
        )
    )
ORDER BY cause.position
"""


def link(previous: bytes, position: int, countable: bytes, private_digest: bytes) -> bytes:
    """Give a transition's link of the chain; `countable` is what the migration 0009 puts before the private digest."""
    stored = hashlib.sha256(countable + private_digest).digest()
    return hashlib.sha256(previous + position.to_bytes(8, "big") + stored).digest()


class ChainCheck:
    """Follows the chain from its beginning.

    Attributes:
        position: of the last transition that was seen; 0 before the first.
        link: its link.
        link_at_head: the link of the position that a head names, once it was passed; None if it was not.

    """

    def __init__(self, findings: Findings, expected: Head | None) -> None:
        self._findings = findings
        self._expected = expected
        self.position = 0
        self.link = GENESIS
        self.link_at_head = GENESIS if expected is not None and expected.position == 0 else None

    def take(self, position: int, event_id: EventId, stored: bytes | None, found: bytes | None) -> None:
        """Take the next transition: the link that is stored with it, and the one that what is stored gives."""
        if position != self.position + 1:
            missing = (
                f"position {self.position + 1} is missing"
                if position > self.position
                else "a position is there twice"
            )
            self._findings.add(f"{missing}: {event_id} is at {position}")
        elif stored is None or stored != found:
            self._findings.add(f"the transition at position {position}, {event_id}, is not as it was stored")
        self.position, self.link = position, stored or GENESIS
        if self._expected is not None and self._expected.position == position:
            self.link_at_head = self.link


async def check_chain(
    connection: Connection, findings: Findings, check: ChainCheck, on_done: Callable[[int], None]
) -> None:
    """Follow the chain, within the caller's snapshot."""
    async for row in connection.cursor(_CHAIN, prefetch=_ROWS_AT_ONCE):
        position, writer_id, writer_seq, stored, private_digest, countable, private, _ = row
        if private is not None:
            private_digest = hashlib.sha256(private).digest()
        elif not row["is_erased"]:
            private_digest = None  # nobody was erased here, so what it stands for can't be believed
        known = countable is not None and private_digest is not None
        found = link(check.link, position, countable, private_digest) if known else None
        check.take(position, EventId(writer_id, writer_seq), stored, found)
        if position % _ROWS_AT_ONCE == 0:
            on_done(position)
    for row in await connection.fetch(_UNUSED):
        findings.add(f"transition {EventId(*row)} has something in a column that no transition uses")
    last, chain = await connection.fetchrow("SELECT last, chain FROM log_position")
    if (last, chain) != (check.position, check.link):
        findings.add(
            f"the log's position says {last}, and the last transition is at {check.position}, or has another link"
        )


async def check_causes(connection: Connection, findings: Findings, days: Iterable[date]) -> None:
    """See that the failures that made breakers open are there, on the days of which outcomes are kept."""
    for row in await connection.fetch(_MISSING_CAUSES, list(days)):
        findings.add(f"{row['id']}, a cause of the transition at position {row['position']}, is missing")


async def compare_head(connection: Connection, findings: Findings, check: ChainCheck, expected: Head) -> None:
    """Tell whether the record goes on from the one that the head was taken of."""
    if check.link_at_head is None:
        findings.add(f"the head is of position {expected.position}, and the log ends at {check.position}")
        return
    found = await read_head(connection, expected.position, check.link_at_head, expected.moment)
    if found != expected:
        findings.add(f"what is stored up to position {expected.position} is not what the head was taken of")
