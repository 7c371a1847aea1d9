"""The check that the ledger is one line of batches for each writer, from the first on, and that every transition is in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from breaker_store.core.events import EventId
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings

_ROWS_AT_ONCE: Final = 2_000

_LEDGER: Final = """
SELECT writer_id, batch_no, first_seq, last_seq, format, digest, previous_digest FROM writer_batches
ORDER BY writer_id, batch_no
"""

_STRAYS: Final = """
SELECT writer_id, writer_seq
FROM breaker_transitions AS transition
WHERE NOT EXISTS (
    SELECT FROM writer_batches AS batch
    WHERE batch.writer_id = transition.writer_id AND writer_seq BETWEEN first_seq AND last_seq
)
ORDER BY writer_id, writer_seq
"""

# Each batch of the format without a seal is named as such by the transaction that stored it, and by nothing else.
_PASSED_OFF_AS_OLD: Final = """
SELECT writer_id, batch_no, named.batch_no IS NULL AS is_passed_off
FROM (SELECT * FROM writer_batches WHERE format = 1) AS old
FULL JOIN unsealed_batches AS named USING (writer_id, batch_no)
WHERE old.batch_no IS NULL OR named.batch_no IS NULL
ORDER BY writer_id, batch_no
"""


# They are looked for on the days of the log alone.
_OF_NO_DAY: Final = """
SELECT writer_id, batch_no FROM writer_batches WHERE earliest < '1970-01-01 00:00+00' OR latest >= '2200-01-01 00:00+00'
ORDER BY writer_id, batch_no
"""


class LedgerCheck:
    """Follows the ledger, or a proof's lines of it, in the order of writer and number."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._last: Mapping[str, Any] = {"writer_id": None}

    def take(self, batch: Mapping[str, Any]) -> None:
        last = self._last
        self._last = batch
        if last["writer_id"] != batch["writer_id"]:
            last = {"batch_no": 0, "digest": None, "last_seq": 0, "format": 0}
        name = f"of writer {batch['writer_id']}"
        if batch["batch_no"] != last["batch_no"] + 1:
            self._findings.add(f"the ledger has no batch {last['batch_no'] + 1} {name}, but later ones")
        elif (
            batch["previous_digest"] != last["digest"]
            or batch["first_seq"] <= last["last_seq"]
            or batch["format"] < last["format"]
        ):
            self._findings.add(
                f"batch {batch['batch_no']} {name} does not follow the one before it in the ledger"
            )


async def check_ledger(connection: Connection, findings: Findings) -> None:
    """Check the ledger by itself, within the caller's snapshot."""
    check = LedgerCheck(findings)
    async for row in connection.cursor(_LEDGER, prefetch=_ROWS_AT_ONCE):
        check.take(row)
    for writer_id, batch_no, is_passed_off in await connection.fetch(_PASSED_OFF_AS_OLD):
        what = "was not stored as one" if is_passed_off else "is missing, or has become another one"
        findings.add(f"batch {batch_no} of writer {writer_id}, without a seal, {what}")
    for writer_id, batch_no in await connection.fetch(_OF_NO_DAY):
        findings.add(f"batch {batch_no} of writer {writer_id} is of a time that has no day")
    for row in await connection.fetch(_STRAYS):
        findings.add(f"transition {EventId(*row)} belongs to no batch of the ledger")
