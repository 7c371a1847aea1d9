"""The check of an export against its proof, without the database, by the same rules.

Both files may be longer than memory is large, and the export is in the order of time: so events are put into a database
of SQLite first, in a temporary file, and taken out again batch by batch.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias
from uuid import UUID

from breaker_store.core.events import FIRST_TRANSITION_KIND, EventId, Kind, Verdict
from breaker_store.errors import BreakerStoreError
from breaker_store.ports import OutcomeRow
from breaker_store.postgres.batch_checks import BatchCheck, BatchReport
from breaker_store.postgres.chain_checks import ChainCheck, link
from breaker_store.postgres.codec import POSTGRES_EPOCH_US, PRIVATE_DETAILS, encode_row, iso, microseconds
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.gap_checks import gap_break
from breaker_store.postgres.heads import Head, Moment, head_of_proof
from breaker_store.postgres.ledger_checks import LedgerCheck
from breaker_store.postgres.outcome_days import DroppedDays
from breaker_store.postgres.reseals import Reseals
from breaker_store.postgres.sealed_batches import StoredBatch
from breaker_store.postgres.verification import Verification

_KINDS: Final = {kind.label: int(kind) for kind in Kind}
_VERDICTS: Final = {verdict.name.lower(): int(verdict) for verdict in Verdict}

_COUNTABLE: Final = struct.Struct(">qqqiiihh")

_TABLE: Final = """
CREATE TABLE event (writer_id INTEGER, writer_seq INTEGER, is_transition INTEGER, stored BLOB);
"""
_SAMPLES_AT_ONCE: Final = 10_000

Lines: TypeAlias = list[dict[str, Any]]
"""Of a proof."""


class UnreadableExportError(BreakerStoreError):
    """A line is not what an export, or its proof, has."""


def verify_export(
    export: BinaryIO,
    proof: BinaryIO,
    expected: Head | None = None,
    on_progress: Callable[[str, int, int | None], None] = lambda _what, _done, _total: None,
) -> Verification:
    """Check an export of everything, as JSON lines, against its proof; and a head, if one is given.

    Raises:
        UnreadableExportError: a line is of no export, or of no proof.

    """
    with tempfile.TemporaryDirectory(prefix="breaker-store-verify-") as folder:
        events = sqlite3.connect(Path(folder, "events"), isolation_level=None)
        try:
            return _Check(events, expected, on_progress).run(export, proof)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableExportError("a line of the proof is none, or not a whole one") from error
        finally:
            events.close()


class _Check:
    def __init__(
        self,
        events: sqlite3.Connection,
        expected: Head | None,
        on_progress: Callable[[str, int, int | None], None],
    ) -> None:
        self._events = events
        self._expected = expected
        self._on_progress = on_progress
        self._findings = Findings()
        self._chain = ChainCheck(self._findings, expected)
        self._users: set[int] = set()
        self._matched = 0

    def run(self, export: BinaryIO, proof: BinaryIO) -> Verification:
        count = self._load(export)
        lines = _read_proof(proof)
        moment, dropped = _read_moment(lines["moment"])
        batches, gaps = lines["batch"], lines["gap"]
        ledger = LedgerCheck(self._findings)
        for batch in batches:
            ledger.take(batch)
        self._check_gaps(batches, gaps)
        report = self._check_batches(batches, self._read_reseals(lines["reseal"]), dropped)
        if count != self._matched:
            self._findings.add(f"the export has {count:,} events, and its batches {self._matched:,}")
        for line in lines["link"]:
            self._take_link(line)
        if self._expected is not None:
            self._compare(self._expected, batches, gaps)
        head = head_of_proof(self._chain.position, self._chain.link, moment, batches, gaps)
        found, kept_from = self._findings, dropped.kept_from
        return Verification(
            report, self._chain.position, len(self._users), kept_from, head, found.count, tuple(found.texts)
        )

    def _load(self, export: BinaryIO) -> int:
        self._events.executescript(_TABLE)
        self._events.execute("BEGIN")
        count = 0
        for count, line in enumerate(_read_lines(export, "the export"), start=1):
            self._events.execute("INSERT INTO event VALUES (?, ?, ?, ?)", self._stored(line))
            if count % _SAMPLES_AT_ONCE == 0:
                self._on_progress("events", count, None)
        self._events.execute("COMMIT")
        self._events.execute("CREATE INDEX event_identity ON event (writer_id, writer_seq)")
        return count

    def _stored(self, line: dict[str, Any]) -> tuple[int, int, bool, bytes]:
        try:
            event_id = EventId.read(line["id"])
            self._users.add(line["user_id"])
            kind = _number(line["kind"], _KINDS)
            if kind >= FIRST_TRANSITION_KIND:
                return *event_id, True, json.dumps(_document(line, event_id, kind)).encode()
            row = _outcome_row(line, event_id, kind, _time(line["at"]))
            return *event_id, False, b"".join(encode_row(event_id.writer_id, row))
        except (KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
            raise UnreadableExportError("a line of the export is no event, or not a whole one") from error

    def _read_reseals(self, lines: Lines) -> Reseals:
        reseals = Reseals()
        for line in lines:
            erasure = EventId(line["erasure_writer_id"], line["erasure_writer_seq"])
            seals = bytes.fromhex(line["digest_before"]), bytes.fromhex(line["digest_after"])
            reseals.add(line["writer_id"], line["batch_no"], erasure, *seals)
        reseals.check(self._findings, self._read_told)
        return reseals

    def _read_told(self, erasure: EventId) -> str | None:
        told = [document["details"].get("erasure_digest") for document in self._documents(erasure)]
        return told[0] if len(told) == 1 else None

    def _check_gaps(self, batches: Lines, gaps: Lines) -> None:
        numbers: dict[tuple[int, int], list[int]] = defaultdict(list)
        for gap in gaps:
            numbers[gap["writer_id"], gap["batch_no"]].append(gap["gap_no"])
        counts = {(line["writer_id"], line["batch_no"]): line["event_count"] for line in batches}
        empty = {batch for batch, count in counts.items() if count == 0}
        for writer_id, batch_no in sorted(numbers.keys() | empty):
            batch = writer_id, batch_no
            if text := gap_break(writer_id, batch_no, counts.get(batch), numbers[batch]):
                self._findings.add(text)

    def _check_batches(self, batches: Lines, reseals: Reseals, dropped: DroppedDays) -> BatchReport:
        check = BatchCheck(self._findings, reseals, dropped, lambda _done: None)
        for number, line in enumerate(batches, start=1):
            check.take(self._batch_of(line))
            self._on_progress("batches", number, len(batches))
        return check.report

    def _batch_of(self, line: dict[str, Any]) -> StoredBatch:
        extent = line["writer_id"], line["first_seq"], line["last_seq"]
        rows = list(self._read(*extent, transitions=False))
        documents = [json.loads(data) for data in self._read(*extent, transitions=True)]
        self._matched += len(rows) + len(documents)
        return StoredBatch(
            line["writer_id"],
            line["batch_no"],
            line["first_seq"],
            line["last_seq"],
            line["event_count"],
            line["format"],
            line["earliest_us"],
            line["latest_us"],
            bytes.fromhex(line["digest"]),
            _bytes(line["previous_digest"]),
            _bytes(line["seal"]),
            b"".join(rows),
            documents,
        )

    def _read(self, writer_id: int, first: int, last: int, *, transitions: bool) -> Iterator[bytes]:
        found = self._events.execute(
            "SELECT stored FROM event WHERE writer_id = ? AND writer_seq BETWEEN ? AND ? AND is_transition = ?"
            " ORDER BY writer_seq",
            (writer_id, first, last, transitions),
        )
        return (row[0] for row in found)

    def _documents(self, event_id: EventId) -> list[dict[str, Any]]:
        span = event_id.writer_id, event_id.writer_seq, event_id.writer_seq
        return [json.loads(data) for data in self._read(*span, transitions=True)]

    def _take_link(self, line: dict[str, Any]) -> None:
        event_id = EventId(line["writer_id"], line["writer_seq"])
        countable, private = _bytes(line["countable"]), _bytes(line["private"])
        found = None
        if countable is not None and any(
            _tells(countable, private, event_id, document) for document in self._documents(event_id)
        ):
            digest = _bytes(line["private_digest"]) if private is None else hashlib.sha256(private).digest()
            found = None if digest is None else link(self._chain.link, line["position"], countable, digest)
        self._chain.take(line["position"], event_id, _bytes(line["chain"]), found)

    def _compare(self, expected: Head, batches: Lines, gaps: Lines) -> None:
        position, link_at_head = expected.position, self._chain.link_at_head
        if link_at_head is None:
            self._findings.add(
                f"the head is of position {position}, and the export ends at {self._chain.position}"
            )
        elif head_of_proof(position, link_at_head, expected.moment, batches, gaps) != expected:
            self._findings.add(
                f"what is exported up to position {position} is not what the head was taken of"
            )


def _read_proof(proof: BinaryIO) -> dict[str, Lines]:
    lines: dict[str, Lines] = defaultdict(list)
    for line in _read_lines(proof, "the proof"):
        lines[str(line.get("proof"))].append(line)
    return lines


def _read_moment(lines: Lines) -> tuple[Moment, DroppedDays]:
    if len(lines) != 1:
        raise UnreadableExportError("the proof does not say of which moment it is")
    (line,) = lines
    moment = Moment(line["xid"], line["restored_xid"], line["at_us"])
    return moment, DroppedDays(frozenset(map(date.fromisoformat, line["dropped_days"])))


def _tells(countable: bytes, private: bytes | None, event_id: EventId, document: dict[str, Any]) -> bool:
    """Tell whether the bytes of a link are those of the transition that was exported."""
    at, writer_id, seq, generation, era, version, kind, _ = _COUNTABLE.unpack_from(countable)
    details = json.loads(countable[_COUNTABLE.size :])
    about_person = [document["details"].get(name) for name in ("reason", "last_failure", "causes")]
    about_person += [value for name, value in document["details"].items() if name == "suspension"]
    told = {
        "seq": seq,
        "at": iso(at + POSTGRES_EPOCH_US),
        "generation": generation,
        "era": era,
        "version": version,
        "kind": kind,
        "details": details,
    }
    exported = {name: document[name] for name in told}
    exported["details"] = {
        name: value for name, value in document["details"].items() if name not in PRIVATE_DETAILS
    }
    if private is not None:
        user_id = int.from_bytes(private[16:24], "big", signed=True)
        if (user_id, json.loads(private[24:])) != (document["user_id"], about_person):
            return False
    if private is None and document["user_id"] >= -(2**62):
        return False  # nobody was erased here
    return told == exported and writer_id == event_id.writer_id


def _read_lines(file: BinaryIO, what: str) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(file, start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise UnreadableExportError(f"line {number} of {what} is no JSON") from error
        if not isinstance(line, dict):
            raise UnreadableExportError(f"line {number} of {what} is no JSON object")
        yield line


def _document(line: dict[str, Any], event_id: EventId, kind: int) -> dict[str, Any]:
    """Give a transition's document as the digest of its batch has it."""
    return {
        "user_id": line["user_id"],
        "seq": event_id.writer_seq,
        "at": iso(_time(line["at"])),
        "kind": kind,
        "version": line["version"],
        "generation": line["generation"],
        "era": line["era"],
        "details": line["details"],
    }


def _outcome_row(line: dict[str, Any], event_id: EventId, kind: int, at: int) -> OutcomeRow:
    trace_id = line["trace_id"]
    return (
        at, line["user_id"], event_id.writer_seq, line["duration_us"], line["generation"], line["era"], kind,
        _number(line["verdict"], _VERDICTS), line["probe"], line["count"], line["attempt"],
        None if trace_id is None else UUID(trace_id), line["operation"], line["error_type"], line["error_message"],
    )  # fmt: skip


def _number(name: str, numbers: dict[str, int]) -> int:
    """Read a kind or a verdict by its name; one that this version does not know ends with its number."""
    return numbers[name] if name in numbers else int(name.rpartition("-")[2])


def _time(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
