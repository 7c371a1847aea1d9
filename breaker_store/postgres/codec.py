"""How events stand in Postgres: as bytes for COPY, and as documents. The way back is in `stored_events`.

The digest of a batch (format 2) is made so that a person can be erased from it and the rest stays proven. It is SHA-256
over: what the ledger says of the batch (`BatchHead`, big-endian); the previous digest, if there is one; the digest
of what is countable; the digest of the contents. Both of these are SHA-256, over

- what is countable: the rows of its outcomes in the binary format of COPY, without header and trailer, each up to its
  `attempt`, so without user and texts; then the transitions' countable documents (`countable_document`);
- the contents: a random salt; the rows as a whole, columns as in `OUTCOME_COLUMNS`, in the order of their numbers; then,
  for each transition in the order of its number, its canonical document: JSON with sorted keys, no spaces, characters
  outside ASCII as they are, in UTF-8.

The ledger keeps the salt and the digest of what is countable. All else can be read again from what is stored, so the
ledger proves that it is what was sent. When a person is erased, the salt of a batch is forgotten with their texts: the
digest of the old contents then tells nothing of them, and what is countable stays proven as it was.

What a batch says to be missing (its gaps) is stored with it and not covered: a batch that is sent again must bring the
same gaps.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from breaker_store.core.cleaning import clean_name
from breaker_store.core.events import (
    CircuitState,
    Failure,
    Suspension,
    Transition,
)
from breaker_store.core.policy import Policy
from breaker_store.errors import EventRefusedError
from breaker_store.ports import SALT_BYTES, Batch, Gap, Mark, OutcomeRow

logger = logging.getLogger(__name__)

FORMAT = 2
DETAILS_VERSION = 1

OUTCOME_COLUMNS = (
    "occurred_at",
    "writer_id",
    "writer_seq",
    "duration_us",
    "generation",
    "era",
    "kind",
    "verdict",
    "probe",
    "count",
    "attempt",
    # From here on it is about a person.
    "user_id",
    "operation",
    "error_type",
    "error_message",
    "trace_id",
)

PRIVATE_DETAILS = ("reason", "last_failure", "causes", "suspension")
"""What of a transition's details has texts about a person in it, and goes when they are erased."""

STATE_NUMBERS = {CircuitState.CLOSED: 0, CircuitState.OPEN: 1, CircuitState.HALF_OPEN: 2}
STATES = {number: state for state, number in STATE_NUMBERS.items()}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
POSTGRES_EPOCH_US = 946_684_800_000_000

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
# Sixteen fields, each preceded by its length: four of 8 bytes, two of 4, two of 2, three nulls, and the user.
_PLAIN_ROW = struct.Struct(">hiqiqiqiqiiiiihihiiiiq").pack
_LEADING_FIELDS = struct.Struct(">hiqiqiq").pack
USER_FIELD_SIZE = 12
_BATCH_HEAD = struct.Struct(">hqqqqiqq").pack
_BIGINT = struct.Struct(">iq").pack
_INTEGER = struct.Struct(">ii").pack
_SMALLINT = struct.Struct(">ih").pack
_LENGTH = struct.Struct(">i").pack


@dataclass(frozen=True, slots=True)
class PostgresBatch:
    """A batch with its bytes.

    Attributes:
        rows: the outcomes as COPY takes them, without header and trailer.
        finish_document: what the function `finish_batch` takes; empty if the batch is nothing but outcomes.
        seal: the salt and the digest of what is countable, 16 and 32 bytes.

    """

    batch: Batch
    rows: bytes
    finish_document: str
    digest: bytes
    seal: bytes

    def copy_data(self) -> bytes:
        return b"".join((_HEADER, self.rows, _TRAILER))

    def append_document(self) -> str:
        """Write what the function `append_batch` takes: the outcomes as well."""
        outcomes = canonical({"outcomes": [_outcome_document(row) for row in self.batch.outcomes]})
        return f"{outcomes[:-1]},{self.finish_document[1:]}" if self.finish_document else outcomes


def seal(batch: Batch) -> PostgresBatch:
    """Encode a batch.

    Raises:
        EventRefusedError: a text is no Unicode, or a number or time does not fit its column.

    """
    try:
        return _seal(batch)
    except (struct.error, UnicodeEncodeError, OverflowError) as error:
        raise EventRefusedError(f"{type(error).__name__}: an event can't be encoded") from error


def _seal(batch: Batch) -> PostgresBatch:
    parts = _encode_rows(batch.writer_id, batch.outcomes)
    rows = b"".join(parts)
    countable = b"".join([part[:-USER_FIELD_SIZE] for part in parts[::_PARTS]])
    documents = [transition_document(user_id, transition) for user_id, transition in batch.transitions]
    contents = contents_digest(batch.salt, rows, documents)
    seal = batch.salt + countable_digest(countable, documents)
    digest = batch_digest(_head_of(batch), batch.previous_digest, seal, contents)
    finish_document = _finish_document(batch, documents)
    finish_document.encode()  # what can't be encoded is found here, before it is sent
    return PostgresBatch(batch, rows, finish_document, digest, seal)


class BatchHead(NamedTuple):
    """What the ledger says of a batch; times are Unix microseconds."""

    format: int
    writer_id: int
    batch_no: int
    first_seq: int
    last_seq: int
    event_count: int
    earliest: int
    latest: int


def _head_of(batch: Batch) -> BatchHead:
    return BatchHead(
        FORMAT,
        batch.writer_id,
        batch.batch_no,
        batch.first_seq,
        batch.last_seq,
        batch.event_count,
        batch.earliest,
        batch.latest,
    )


def batch_digest(head: BatchHead, previous_digest: bytes | None, seal: bytes, contents: bytes) -> bytes:
    """Give the digest of a batch from its parts, as the module says; `contents` is their digest."""
    named = _BATCH_HEAD(*head) + (previous_digest or b"")
    return hashlib.sha256(named + seal[SALT_BYTES:] + contents).digest()


def contents_digest(salt: bytes, rows: bytes, documents: Iterable[Mapping[str, Any]]) -> bytes:
    digest = hashlib.sha256(salt)
    digest.update(rows)
    for document in documents:
        digest.update(canonical(document).encode())
    return digest.digest()


def countable_digest(rows: bytes, documents: Iterable[Mapping[str, Any]]) -> bytes:
    """Give the digest of what is countable, from rows that end before their user, and whole documents."""
    digest = hashlib.sha256(rows)
    for document in documents:
        digest.update(canonical(countable_document(document)).encode())
    return digest.digest()


def countable_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a transition's document what is about a person."""
    details = {name: value for name, value in document["details"].items() if name not in PRIVATE_DETAILS}
    return {**{name: document[name] for name in document if name != "user_id"}, "details": details}


def erased_document(document: Mapping[str, Any], pseudonym: int) -> dict[str, Any]:
    """Give a transition's document with another user, and without texts."""
    details = dict(document["details"])
    if "reason" in details:
        details["reason"] = None
    if "last_failure" in details:
        details["last_failure"] = _without_texts(details["last_failure"])
    if "causes" in details:
        details["causes"] = [_without_texts(cause) for cause in details["causes"]]
    if "suspension" in details:
        details["suspension"] = {**details["suspension"], "reason": None}
    return {**document, "user_id": pseudonym, "details": details}


def _without_texts(failure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {**failure, "error_type": None, "error_message": None, "operation": None}


def _encode_rows(writer_id: int, rows: Sequence[OutcomeRow]) -> list[bytes]:
    """Encode outcomes for a binary COPY, each in `_PARTS` parts, of which the first ends with the user.

    The common row, a success with nothing to say, is packed in one go.
    """
    parts: list[bytes] = []
    for row in rows:
        at, user_id, seq, duration, generation, era, kind, verdict, *rest, operation, error_type, message = (
            row
        )
        if duration is None or rest != _NOTHING:
            parts += encode_row(writer_id, row)
            continue
        parts.append(
            _PLAIN_ROW(
                16, 8, at - POSTGRES_EPOCH_US, 8, writer_id, 8, seq, 8, duration,
                4, generation, 4, era, 2, kind, 2, verdict, -1, -1, -1, 8, user_id,
            )
        )  # fmt: skip
        parts.append(_encoded_name(operation))
        parts.append(_encoded_name(error_type))
        parts.append(_NO_MESSAGE if message is None else _encoded(message) + _NULL)
    return parts


_PARTS = 4
_NOTHING: list[None] = [None, None, None, None]
_NO_MESSAGE = _NULL + _NULL


def encode_row(writer_id: int, row: OutcomeRow) -> tuple[bytes, ...]:
    """Encode an outcome for a binary COPY, in parts of which the first ends with the user."""
    at, user_id, seq, duration, generation, era, kind, verdict, probe, count, attempt, trace_id, *texts = row
    leading = b"".join(
        (
            _LEADING_FIELDS(16, 8, at - POSTGRES_EPOCH_US, 8, writer_id, 8, seq),
            _NULL if duration is None else _BIGINT(8, duration),
            _INTEGER(4, generation),
            _INTEGER(4, era),
            _SMALLINT(2, kind),
            _SMALLINT(2, verdict),
            _NULL if probe is None else _INTEGER(4, probe),
            _NULL if count is None else _INTEGER(4, count),
            _NULL if attempt is None else _SMALLINT(2, attempt),
            _BIGINT(8, user_id),
        )
    )
    trace = _NULL if trace_id is None else _LENGTH(16) + trace_id.bytes
    return leading, _encoded_name(texts[0]), _encoded_name(texts[1]), _encoded(texts[2]) + trace


@lru_cache(maxsize=4_096)
def _encoded_name(name: str | None) -> bytes:
    return _encoded(None if name is None else clean_name(name))


def _encoded(text: str | None) -> bytes:
    if text is None:
        return _NULL
    data = text.encode()
    return _LENGTH(len(data)) + data


def canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _outcome_document(row: OutcomeRow) -> dict[str, Any]:
    at, user_id, seq, duration, generation, era, kind, verdict, probe, count, attempt, trace_id, *texts = row
    return {
        "occurred_at": iso(at),
        "user_id": user_id,
        "seq": seq,
        "duration_us": duration,
        "generation": generation,
        "era": era,
        "kind": kind,
        "verdict": verdict,
        "probe": probe,
        "count": count,
        "attempt": attempt,
        "trace_id": None if trace_id is None else str(trace_id),
        "operation": None if texts[0] is None else clean_name(texts[0]),
        "error_type": None if texts[1] is None else clean_name(texts[1]),
        "error_message": texts[2],
    }


def _finish_document(batch: Batch, documents: Iterable[Mapping[str, Any]]) -> str:
    if not (batch.newcomers or batch.transitions or batch.marks or batch.lines or batch.gaps):
        return ""
    changes = [
        _change(each.transition, document)
        for each, document in zip(batch.transitions, documents, strict=True)
    ]
    changes += [_marked(mark) for mark in batch.marks]
    document = {
        "newcomers": [
            {"user_id": user, "policy": _unusual(policy)} for user, policy in batch.newcomers.items()
        ],
        "changes": sorted(changes, key=lambda change: change["seq"]),
        "lines": [str(line) for line in batch.lines],
        "gaps": [_gap_document(batch.batch_no, *numbered) for numbered in enumerate(batch.gaps, start=1)],
    }
    return canonical(document)


def _gap_document(batch_no: int, gap_no: int, gap: Gap) -> dict[str, Any]:
    # In order, whatever two measurements of the database's clock made of them: a gap must not hold up events.
    first_at, last_at = sorted((gap.first_at, gap.last_at))
    document = gap._asdict() | {"first_at": iso(first_at), "last_at": iso(last_at)}
    return document | {"batch_no": batch_no, "gap_no": gap_no}


def _unusual(policy: Policy) -> dict[str, Any] | None:
    return None if policy == Policy() else policy.to_document()


def _marked(mark: Mark) -> dict[str, Any]:
    return {
        "user_id": mark.user_id,
        "seq": mark.writer_seq,
        "mark": mark.kind.name.lower(),
        "at": iso(mark.at),
        "era": mark.era,
        "last_failure": failure_document(mark.last_failure),
    }


def _change(transition: Transition, document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **document,
        "follows_writer_id": transition.follows and transition.follows.writer_id,
        "follows_writer_seq": transition.follows and transition.follows.writer_seq,
        "state": STATE_NUMBERS[transition.to_state],
        "failure_count": transition.failure_count,
        "last_failure": failure_document(transition.last_failure),
        "opened_at": iso(transition.opened_at),
        "retry_at": iso(transition.retry_at),
        "policy": _unusual(transition.policy),
        "policy_is_own": transition.policy_is_own,
        "forced": transition.forced,
        "suspended": transition.suspension is not None,
        "success_count": transition.success_count,
    }


def transition_document(user_id: int, transition: Transition) -> dict[str, Any]:
    """Give what is stored of a transition, and covered by the digest of its batch."""
    return {
        "user_id": user_id,
        "seq": transition.event_id.writer_seq,
        "at": iso(transition.at),
        "kind": int(transition.kind),
        "version": transition.version,
        "generation": transition.generation,
        "era": transition.era,
        "details": details_document(transition),
    }


def details_document(transition: Transition) -> dict[str, Any]:
    document: dict[str, Any] = {
        "from": transition.from_state.value,
        "to": transition.to_state.value,
        "follows": None if transition.follows is None else str(transition.follows),
        "reason": transition.reason,
        "actor": transition.actor,
        "policy": transition.policy.to_document(),
        "policy_is_own": transition.policy_is_own,
        "failure_count": transition.failure_count,
        "last_failure": failure_document(transition.last_failure),
        "causes": [failure_document(cause) for cause in transition.causes],
        "opened_at": iso(transition.opened_at),
        "opened_by": None if transition.opened_by is None else str(transition.opened_by),
        "retry_at": iso(transition.retry_at),
    }
    # Only where they say something: of any other transition the bytes, and so the digests, are what they always were.
    if transition.forced:
        document["forced"] = True
    if transition.suspension is not None:
        document["suspension"] = _suspension_document(transition.suspension)
    if transition.success_count:
        document["success_count"] = transition.success_count
    if transition.erasure_digest is not None:
        document["erasure_digest"] = transition.erasure_digest
    return document


def _suspension_document(suspension: Suspension) -> dict[str, Any]:
    return {"actor": suspension.actor, "reason": suspension.reason, "at": iso(suspension.at)}


def failure_document(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "id": str(failure.event_id),
        "at": iso(failure.at),
        "error_type": failure.error_type,
        "error_message": failure.error_message,
        "operation": failure.operation,
        "duration_us": failure.duration_us,
    }


def iso(time_us: int | None) -> str | None:
    """Write a time in UTC, always with microseconds, so that texts sort as times do."""
    if time_us is None:
        return None
    return to_datetime(time_us).isoformat(timespec="microseconds")


def to_datetime(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


def microseconds(time: datetime) -> int:
    return (time - EPOCH) // _MICROSECOND
