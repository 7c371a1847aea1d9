"""What stands in the database, read past the code that is tested."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from datetime import UTC, datetime
from typing import Any

import asyncpg

from breaker_store.core.events import StoredEvent
from breaker_store.postgres.codec import OUTCOME_COLUMNS
from breaker_store.postgres.stored_events import read_outcome, read_transition

COPY_HEADER_BYTES, COPY_TRAILER_BYTES = 19, 2

_ROWS = "SELECT {} FROM breaker_outcomes WHERE writer_id = {} AND writer_seq BETWEEN {} AND {} ORDER BY writer_seq"


async def read_events(connection: asyncpg.Connection, user_id: int) -> list[StoredEvent]:
    """Give all events of a user, in no order."""
    outcomes = await connection.fetch("SELECT * FROM breaker_outcomes WHERE user_id = $1", user_id)
    transitions = await connection.fetch("SELECT * FROM breaker_transitions WHERE user_id = $1", user_id)
    return [read_outcome(row) for row in outcomes] + [read_transition(row).transition for row in transitions]


async def recompute_digest(connection: asyncpg.Connection, batch: asyncpg.Record) -> bytes:
    """Work out from the stored rows alone what a row of the ledger should say, as an auditor would."""
    writer_id, first, last = batch["writer_id"], batch["first_seq"], batch["last_seq"]
    data = io.BytesIO()
    query = _ROWS.format(", ".join(OUTCOME_COLUMNS), writer_id, first, last)
    await connection.copy_from_query(query, output=data, format="binary")
    digest = hashlib.sha256(struct.pack(">qq", writer_id, batch["batch_no"]))
    digest.update(batch["previous_digest"] or b"")
    digest.update(data.getvalue()[COPY_HEADER_BYTES:-COPY_TRAILER_BYTES])
    for row in await connection.fetch(
        "SELECT * FROM breaker_transitions WHERE writer_id = $1 AND writer_seq BETWEEN $2 AND $3 ORDER BY writer_seq",
        writer_id,
        first,
        last,
    ):
        text = json.dumps(transition_document(row), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest.update(text.encode())
    return digest.digest()


def transition_document(row: asyncpg.Record) -> dict[str, Any]:
    at: datetime = row["occurred_at"].astimezone(UTC)
    return {
        "user_id": row["user_id"],
        "seq": row["writer_seq"],
        "at": at.isoformat(timespec="microseconds"),
        "kind": row["kind"],
        "version": row["version"],
        "generation": row["generation"],
        "era": row["era"],
        "details": json.loads(row["details"]),
    }


async def contradicting_batches(connection: asyncpg.Connection) -> list[tuple[int, int]]:
    """List the batches (writer, number) whose stored rows are not what was sent."""
    batches = await connection.fetch("SELECT * FROM writer_batches ORDER BY writer_id, batch_no")
    return [
        (batch["writer_id"], batch["batch_no"])
        for batch in batches
        if batch["digest"] != await recompute_digest(connection, batch)
    ]
