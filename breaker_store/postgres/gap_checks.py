"""The check of what batches told to be missing: each of it belongs to a batch, and none is between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings

_TOLD: Final = """
SELECT writer_id, batch_no, event_count, coalesce(numbers, '{}') AS numbers
FROM writer_batches
FULL JOIN (
    SELECT writer_id, batch_no, array_agg(gap_no ORDER BY gap_no) AS numbers FROM log_gaps GROUP BY writer_id, batch_no
) AS told USING (writer_id, batch_no)
WHERE event_count IS NULL OR event_count = 0 OR numbers IS NOT NULL
ORDER BY writer_id, batch_no
"""


async def check_gaps(connection: Connection, findings: Findings) -> None:
    """Check the gaps against the ledger, within the caller's snapshot."""
    for writer_id, batch_no, event_count, numbers in await connection.fetch(_TOLD):
        if text := gap_break(writer_id, batch_no, event_count, numbers):
            findings.add(text)


def gap_break(writer_id: int, batch_no: int, event_count: int | None, numbers: Sequence[int]) -> str | None:
    """Say what is wrong with the gaps of a batch, None if nothing is.

    event_count: of the batch, None if there is none. One without events has nothing but gaps to tell.
    numbers: of its gaps, in their order.
    """
    name = f"batch {batch_no} of writer {writer_id}"
    if event_count is None:
        return f"what {name} told to be missing belongs to no batch of the ledger"
    if list(numbers) != list(range(1, len(numbers) + 1)) or (event_count == 0 and not numbers):
        return f"{name} told of more to be missing than is there"
    return None
