"""What stands in the database, read past the code that is tested."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterable
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
    rows = data.getvalue()[COPY_HEADER_BYTES:-COPY_TRAILER_BYTES]
    documents = [
        transition_document(row)
        for row in await connection.fetch(
            "SELECT * FROM breaker_transitions WHERE writer_id = $1 AND writer_seq BETWEEN $2 AND $3"
            " ORDER BY writer_seq",
            writer_id,
            first,
            last,
        )
    ]
    contents = hashlib.sha256(batch["seal"][:16] + rows + canonical(documents)).digest()
    countable = hashlib.sha256(countable_rows(rows) + canonical(map(countable_document, documents))).digest()
    times = [round(batch[name].timestamp() * 1_000_000) for name in ("earliest", "latest")]
    name = struct.pack(
        ">hqqqqiqq", batch["format"], writer_id, batch["batch_no"], first, last, batch["event_count"], *times
    )
    return hashlib.sha256(name + (batch["previous_digest"] or b"") + countable + contents).digest()


def canonical(documents: Iterable[dict[str, Any]]) -> bytes:
    texts = (
        json.dumps(each, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for each in documents
    )
    return "".join(texts).encode()


def countable_rows(rows: bytes) -> bytes:
    """Take the first eleven fields of each row, and the two bytes before them."""
    kept, place = [], 0
    while place < len(rows):
        begun, place = place, place + 2
        for field in range(16):
            if field == 11:
                kept.append(rows[begun:place])
            (length,) = struct.unpack_from(">i", rows, place)
            place += 4 + max(length, 0)
    return b"".join(kept)


def countable_document(document: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in document.items() if name != "user_id"}
    private = ("reason", "last_failure", "causes")
    kept["details"] = {name: value for name, value in document["details"].items() if name not in private}
    return kept


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
