"""What an export needs to be verified without the database: the ledger, the chain, and what erasures did.

One JSON object a line: `batch` lines in the order of writer and number, `reseal` lines, `link` lines in the order of
positions. Bytes are written in hexadecimal. A link has what its digests are made of: the stored bytes of a transition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from breaker_store.postgres.chain_checks import LINK_COLUMNS
from breaker_store.postgres.connecting import Connection

_BATCHES: Final = """
SELECT row_to_json(line) FROM (
    SELECT
        'batch' AS proof, writer_id, batch_no, first_seq, last_seq, event_count, format, xid::text AS xid,
        (extract(epoch FROM recorded_at) * 1000000)::bigint AS recorded_at_us,
        (extract(epoch FROM earliest) * 1000000)::bigint AS earliest_us,
        (extract(epoch FROM latest) * 1000000)::bigint AS latest_us,
        encode(digest, 'hex') AS digest, encode(previous_digest, 'hex') AS previous_digest, encode(seal, 'hex') AS seal
    FROM writer_batches
    ORDER BY writer_id, batch_no
) AS line
"""

_RESEALS: Final = """
SELECT row_to_json(line) FROM (
    SELECT
        'reseal' AS proof, writer_id, batch_no, erasure_writer_id, erasure_writer_seq,
        encode(digest_before, 'hex') AS digest_before, encode(digest_after, 'hex') AS digest_after
    FROM resealed_batches
    ORDER BY writer_id, batch_no
) AS line
"""

_LINKS: Final = f"""
SELECT row_to_json(line) FROM (
    SELECT
        'link' AS proof, position, writer_id, writer_seq, encode(chain, 'hex') AS chain,
        encode(private_digest, 'hex') AS private_digest, encode(countable, 'hex') AS countable,
        encode(private, 'hex') AS private
    FROM (SELECT {LINK_COLUMNS} FROM breaker_transitions WHERE position IS NOT NULL) AS link
    ORDER BY position
) AS line
"""

# JSON has no control characters: with two of them for quote and delimiter, COPY's CSV is the JSON as it is.
_AS_LINES: Final = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}


async def write_proof(connection: Connection, write: Callable[[bytes], None]) -> None:
    """Write the proof of what the caller's snapshot holds."""

    async def take(data: bytes) -> None:
        write(data)

    for query in (_BATCHES, _RESEALS, _LINKS):
        await connection.copy_from_query(query, output=take, **_AS_LINES)
