"""What an export needs to be verified without the database: the ledger, the chain, and what erasures did.

One JSON object a line: first `moment`, which batches were complete and which days retention had dropped; `batch` lines in
the order of writer and number, `gap` lines, `reseal` lines, `link` lines in the order of positions. Bytes are written in
hexadecimal. A link has what its digests are made of: the stored bytes of a transition.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from breaker_store.postgres.chain_checks import LINK_COLUMNS
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.heads import BATCHES, GAPS, read_moment
from breaker_store.postgres.outcome_days import dropped_days_of, list_days

_LINE: Final = "SELECT row_to_json(line) FROM ({}) AS line"

_RESEALS: Final = """
SELECT
    'reseal' AS proof, writer_id, batch_no, erasure_writer_id, erasure_writer_seq,
    encode(digest_before, 'hex') AS digest_before, encode(digest_after, 'hex') AS digest_after
FROM resealed_batches
ORDER BY writer_id, batch_no
"""

_LINKS: Final = f"""
SELECT
    'link' AS proof, position, writer_id, writer_seq, encode(chain, 'hex') AS chain,
    encode(private_digest, 'hex') AS private_digest, encode(countable, 'hex') AS countable,
    encode(private, 'hex') AS private
FROM (SELECT {LINK_COLUMNS} FROM breaker_transitions WHERE position IS NOT NULL) AS link
ORDER BY position
"""

# JSON has no control characters: with two of them for quote and delimiter, COPY's CSV is the JSON as it is.
_AS_LINES: Final = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}


async def write_proof(connection: Connection, write: Callable[[bytes], None]) -> None:
    """Write the proof of what the caller's snapshot holds."""
    moment = await read_moment(connection)
    days = sorted(dropped_days_of(await list_days(connection)).days)
    first = {"proof": "moment", **moment._asdict(), "dropped_days": [day.isoformat() for day in days]}
    write(f"{json.dumps(first)}\n".encode())

    async def take(data: bytes) -> None:
        write(data)

    for query in (BATCHES, GAPS, _RESEALS, _LINKS):
        await connection.copy_from_query(_LINE.format(query), output=take, **_AS_LINES)
