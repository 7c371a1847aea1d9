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
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

from breaker_store.core.events import FIRST_TRANSITION_KIND, EventId, Kind, Verdict
from breaker_store.errors import BreakerStoreError
from breaker_store.ports import OutcomeRow
from breaker_store.postgres.batch_checks import (
    BatchReport,
    Reseal,
    as_sealed,
    erasure_digest,
    explain,
    ledger_break,
)
from breaker_store.postgres.chain_checks import ChainCheck, Head, link
from breaker_store.postgres.codec import (
    FORMAT,
    POSTGRES_EPOCH_US,
    PRIVATE_DETAILS,
    encode_row,
    iso,
    microseconds,
)
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.sealed_batches import StoredBatch
from breaker_store.postgres.verification import Verification

_KINDS: Final = {kind.label: int(kind) for kind in Kind}
_VERDICTS: Final = {verdict.name.lower(): int(verdict) for verdict in Verdict}

_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER: Final = b"\xff\xff"
_LEDGER_ROW: Final = struct.Struct(">hiqiqiqiqiiihi").pack
_COUNTABLE: Final = struct.Struct(">qqqiiihh")

_TABLE: Final = """
CREATE TABLE event (writer_id INTEGER, writer_seq INTEGER, is_transition INTEGER, stored BLOB);
"""
_SAMPLES_AT_ONCE: Final = 10_000


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
        self._report = BatchReport()
        self._reseals: dict[tuple[int, int], list[Reseal]] = defaultdict(list)
        self._first_day: date | None = None
        self._users: set[int] = set()
        self._matched = 0

    def run(self, export: BinaryIO, proof: BinaryIO) -> Verification:
        count = self._load(export)
        lines = list(_read_lines(proof, "the proof"))
        batches = [line for line in lines if line.get("proof") == "batch"]
        self._take_reseals([line for line in lines if line.get("proof") == "reseal"])
        self._follow_ledger(batches)
        for number, line in enumerate(batches):
            self._take_batch(line)
            self._on_progress("batches", number + 1, len(batches))
        if count != self._matched:
            self._findings.add(f"the export has {count:,} events, and its batches {self._matched:,}")
        for line in lines:
            if line.get("proof") == "link":
                self._take_link(line)
        head = _head(self._chain.position, self._chain.link, batches, None)
        if self._expected is not None:
            self._compare(self._expected, batches)
        return Verification(
            self._report,
            self._chain.position,
            len(self._users),
            head,
            self._findings.count,
            tuple(self._findings.texts),
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
            at = _time(line["at"])
            self._first_day = min(filter(None, (self._first_day, datetime.fromisoformat(line["at"]).date())))
            row = _outcome_row(line, event_id, kind, at)
            return *event_id, False, b"".join(encode_row(event_id.writer_id, row))
        except (KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
            raise UnreadableExportError("a line of the export is no event, or not a whole one") from error

    def _take_reseals(self, lines: list[dict[str, Any]]) -> None:
        told: dict[EventId, list[tuple[int, int, bytes, bytes]]] = defaultdict(list)
        for line in lines:
            seals = bytes.fromhex(line["digest_before"]), bytes.fromhex(line["digest_after"])
            self._reseals[line["writer_id"], line["batch_no"]].append(seals)
            erasure = EventId(line["erasure_writer_id"], line["erasure_writer_seq"])
            told[erasure].append((line["writer_id"], line["batch_no"], *seals))
        for erasure, reseals in told.items():
            documents = [
                json.loads(data)
                for data in self._read(erasure.writer_id, *[erasure.writer_seq] * 2, transitions=True)
            ]
            if [each["details"].get("erasure_digest") for each in documents] != [erasure_digest(reseals)]:
                self._findings.add(
                    f"batches were sealed again by an erasure, {erasure}, that tells of others"
                )

    def _follow_ledger(self, batches: list[dict[str, Any]]) -> None:
        before: dict[str, Any] = {}
        for line in batches:
            last = before if before.get("writer_id") == line["writer_id"] else {}
            follows = (
                line["batch_no"] == last.get("batch_no", 0) + 1
                and line["previous_digest"] == last.get("digest")
                and line["first_seq"] > last.get("last_seq", 0)
            )
            if not follows:
                self._findings.add(ledger_break(line["writer_id"], line["batch_no"], last.get("batch_no")))
            before = line

    def _take_batch(self, line: dict[str, Any]) -> None:
        batch = self._batch_of(line)
        self._report.batches += 1
        self._report.events += batch.event_count
        reseals = self._reseals.get((batch.writer_id, batch.batch_no), [])
        self._report.resealed_batches += bool(reseals)
        has_outcomes = batch.event_count > len(batch.documents)
        if batch.format != FORMAT:
            self._report.old_batches += 1
        elif as_sealed(batch, reseals) is None:
            if has_outcomes and (self._first_day is None or batch.earliest_day < self._first_day):
                self._report.dropped_batches += 1
            else:
                self._findings.add(explain(batch))

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

    def _take_link(self, line: dict[str, Any]) -> None:
        event_id = EventId(line["writer_id"], line["writer_seq"])
        countable, private = _bytes(line["countable"]), _bytes(line["private"])
        documents = [
            json.loads(data)
            for data in self._read(event_id.writer_id, *[event_id.writer_seq] * 2, transitions=True)
        ]
        found = None
        if countable is not None and any(
            _tells(countable, private, event_id, document) for document in documents
        ):
            digest = _bytes(line["private_digest"]) if private is None else hashlib.sha256(private).digest()
            found = None if digest is None else link(self._chain.link, line["position"], countable, digest)
        self._chain.take(line["position"], event_id, _bytes(line["chain"]), found)

    def _compare(self, expected: Head, batches: list[dict[str, Any]]) -> None:
        if self._chain.link_at_head is None:
            self._findings.add(
                f"the head is of position {expected.position}, and the export ends at {self._chain.position}"
            )
        elif _head(expected.position, self._chain.link_at_head, batches, expected) != expected:
            self._findings.add(
                f"what is exported up to position {expected.position} is not what the head was taken of"
            )


def _head(position: int, chain: bytes, batches: Iterable[dict[str, Any]], like: Head | None) -> Head:
    """Give the head as the database would; without one to compare with, it takes in every batch."""
    every = list(batches)
    xid = max((int(line["xid"]) + 1 for line in every), default=0) if like is None else like.xid
    at_us = max((line["recorded_at_us"] + 1 for line in every), default=0) if like is None else like.at_us
    digest = hashlib.sha256(chain + _COPY_HEADER)
    for line in every:
        if int(line["xid"]) < xid and line["recorded_at_us"] < at_us:
            numbers = (8, line["writer_id"], 8, line["batch_no"], 8, line["first_seq"], 8, line["last_seq"])
            row = _LEDGER_ROW(7, *numbers, 4, line["event_count"], 2, line["format"], 32)
            digest.update(row + bytes.fromhex(line["digest"]))
    digest.update(_COPY_TRAILER)
    return Head(position, xid, at_us, digest.hexdigest())


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
