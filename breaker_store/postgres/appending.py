"""The three ways in which a batch becomes one transaction; which is cheapest depends on what is in it.

Few outcomes and nothing else: one statement that enters the ledger and inserts them, 1.2 times the price of a bare
insert for a single one, which is what a call with durability "committed" waits for. Few outcomes with changes of
breakers: one function. Many: BEGIN and the ledger, COPY, the changes with COMMIT.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import Final

from breaker_store.core.cleaning import clean_name
from breaker_store.ports import OutcomeRow
from breaker_store.postgres.codec import FORMAT, OUTCOME_COLUMNS, PostgresBatch, to_datetime
from breaker_store.postgres.connecting import Connection

SMALL_BATCH: Final = 50
"""Up to this many outcomes go without COPY."""

_COLUMN_TYPES: Final = {
    "occurred_at": "timestamptz", "user_id": "bigint", "writer_seq": "bigint", "duration_us": "bigint",
    "generation": "integer", "era": "integer", "kind": "smallint", "verdict": "smallint", "probe": "integer",
    "count": "integer", "attempt": "smallint", "trace_id": "uuid", "operation": "text", "error_type": "text",
    "error_message": "text",
}  # fmt: skip
_COLUMNS: Final = ", ".join(_COLUMN_TYPES)

# Nothing is inserted where the ledger does not take the batch: then `append_batch` finds out why. What goes through here
# must keep to what the function `open_batch` asks for.
_APPEND_OUTCOMES = f"""
WITH opened AS (
    INSERT INTO writer_batches (
        writer_id, batch_no, digest, previous_digest, seal, source, format, first_seq, last_seq, event_count, earliest,
        latest
    )
    SELECT $1::bigint, $2::bigint, $3::bytea, $4::bytea, $5::bytea, $6::smallint, {FORMAT}, {{ledger}}
    WHERE $2 = 1 OR EXISTS (
        SELECT FROM writer_batches
        WHERE writer_id = $1 AND batch_no = $2 - 1 AND digest = $4 AND last_seq < $7
    )
    ON CONFLICT (writer_id, batch_no) DO NOTHING
    RETURNING writer_id
)
INSERT INTO breaker_events (writer_id, {_COLUMNS})
SELECT opened.writer_id, outcome.* FROM opened, {{outcomes}} AS outcome ({_COLUMNS})
"""

# The fewer parameters, the better: of a single outcome its number and its time are also its batch's.
_APPEND_ONE: Final = _APPEND_OUTCOMES.format(
    ledger="$7::bigint, $7, 1, $8::timestamptz, $8",
    outcomes="(VALUES ($8, $9::bigint, $7, {}))".format(
        ", ".join(f"${number}::{type_}" for number, type_ in enumerate(list(_COLUMN_TYPES.values())[3:], 10))
    ),
)
_APPEND_FEW: Final = _APPEND_OUTCOMES.format(
    ledger="$7::bigint, $8::bigint, $9::integer, $10::timestamptz, $11::timestamptz",
    outcomes="unnest({})".format(
        ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(_COLUMN_TYPES.values(), 12))
    ),
)
_APPEND_BATCH: Final = "SELECT append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"

# Several statements that are sent at once take no parameters, and literals find no function without their types.
_OPEN_BATCH: Final = """
SELECT open_batch(
    {}::bigint, {}::bigint, {}::bigint, {}::bigint, {}::integer, {}::smallint, {}::smallint, {}::bytea, {}::bytea,
    {}::timestamptz, {}::timestamptz, {}::bytea
)
"""


async def append_batch(connection: Connection, sealed: PostgresBatch) -> None:
    """Store a batch in a transaction of its own; what the ledger has against it is an error of the server's."""
    count = len(sealed.batch.outcomes)
    if count > SMALL_BATCH:
        await _copy(connection, sealed)
    elif count == 0 or sealed.finish_document or not await _append_outcomes(connection, sealed):
        *entry, seal = _ledger_entry(sealed)
        await connection.execute(_APPEND_BATCH, *entry, sealed.append_document(), seal)


async def _append_outcomes(connection: Connection, sealed: PostgresBatch) -> bool:
    """Store a batch that is nothing but a few outcomes; tell whether the ledger took it."""
    batch = sealed.batch
    digests = (sealed.digest, batch.previous_digest, sealed.seal)
    name = (batch.writer_id, batch.batch_no, *digests, int(batch.source))
    if batch.first_seq == batch.last_seq:
        at, user_id, _, *others = _values(batch.outcomes[0])
        status: str = await connection.execute(_APPEND_ONE, *name, batch.first_seq, at, user_id, *others)
    else:
        columns = zip(*map(_values, batch.outcomes), strict=True)
        extent = (batch.first_seq, batch.last_seq, batch.event_count)
        times = (to_datetime(batch.earliest), to_datetime(batch.latest))
        status = await connection.execute(_APPEND_FEW, *name, *extent, *times, *columns)
    return status != "INSERT 0 0"


def _values(row: OutcomeRow) -> tuple[object, ...]:
    at, *others, operation, error_type, message = row
    return (to_datetime(at), *others, _clean(operation), _clean(error_type), message)


@lru_cache(maxsize=4_096)
def _clean(name: str | None) -> str | None:
    return None if name is None else clean_name(name)


async def _copy(connection: Connection, sealed: PostgresBatch) -> None:
    await connection.execute(f"BEGIN; {_OPEN_BATCH.format(*map(_literal, _ledger_entry(sealed)))}")
    await connection.copy_to_table(
        "breaker_events", source=memoryview(sealed.copy_data()), columns=OUTCOME_COLUMNS, format="binary"
    )
    finish = f"SELECT finish_batch({sealed.batch.writer_id}, {_quoted(sealed.finish_document)}); "
    await connection.execute(f"{finish if sealed.finish_document else ''}COMMIT")


def _ledger_entry(sealed: PostgresBatch) -> tuple[object, ...]:
    batch = sealed.batch
    return (
        batch.writer_id,
        batch.batch_no,
        batch.first_seq,
        batch.last_seq,
        batch.event_count,
        FORMAT,
        int(batch.source),
        sealed.digest,
        batch.previous_digest,
        to_datetime(batch.earliest),
        to_datetime(batch.latest),
        sealed.seal,
    )


def _literal(value: object) -> str:
    """Write a number, digest or time as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return str(value) if isinstance(value, int) else f"'{value}'"


def _quoted(text: str) -> str:
    """Quote a text with a mark that is drawn anew, so that nothing in the text can end it."""
    mark = f"$batch_{secrets.token_hex(16)}$"
    return f"{mark}{text}{mark}"
