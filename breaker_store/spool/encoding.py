"""Events as payloads of records, and back.

Nearly all events are successes with nothing to say: they have a fixed form. Any other is a JSON document, with times as
integers. What goes with an event is in the event's own record, so that it is kept or lost with it: the mark of an
outcome, the policy of a user of whom nothing is stored yet, the gaps before it. A record with none of the two kinds of
events in it is a note.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from breaker_store.core.cleaning import clean_name
from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Suspension, Transition, Verdict
from breaker_store.core.policy import Policy
from breaker_store.errors import EventRefusedError
from breaker_store.ports import (
    Batch,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    OutcomeRow,
    Source,
    UserTransition,
)
from breaker_store.spool.records import GREATEST_PAYLOAD, PREFIX_SIZE

SUCCESS: Final = 1
EVENT: Final = 2
NOTE: Final = 3

# The prefix of every record; then user, time, duration, generation, era. The operation's name ends the record.
_SUCCESS: Final = struct.Struct("<BqqIqqqii")
_SUCCESS_BODY: Final = struct.Struct("<qqqii")
SUCCESS_SIZE: Final = _SUCCESS.size
pack_success = _SUCCESS.pack
_pack_success_body = _SUCCESS_BODY.pack
_unpack_success_body = _SUCCESS_BODY.unpack_from

_KIND_SUCCESS: Final = int(Kind.SUCCESS)
_COUNTED: Final = int(Verdict.COUNTED)
_NAMED: Final = b"="

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode

UNENCODABLE: Final = (struct.error, ValueError, TypeError, OverflowError, RecursionError)


class Body(NamedTuple):
    """A record's payload without its prefix."""

    kind: int
    seq: int
    data: bytes


def refused(error: Exception) -> EventRefusedError:
    return EventRefusedError(f"{type(error).__name__}: an event can't be encoded: {error}")


@lru_cache(maxsize=4_096)
def encoded_name(name: str | None) -> bytes:
    """Encode an operation for the fixed form: an empty name is another than none."""
    return b"" if name is None else _NAMED + clean_name(name).encode()


@lru_cache(maxsize=4_096)
def _cleaned(name: str | None) -> str | None:
    return None if name is None else clean_name(name)


@lru_cache(maxsize=4_096)
def _decoded_name(data: bytes) -> str | None:
    if data and data[:1] != _NAMED:
        raise ValueError("not an operation's name")
    return data[1:].decode() if data else None


def encode(batch: Batch, note_seq: int) -> list[Body]:
    """Encode what is in a batch, in the order of its numbers; `note_seq` is the number of a note, if it needs one.

    Raises:
        EventRefusedError: a text is no Unicode, a number has no room, or all in all it is too long for a record.

    """
    try:
        bodies = _encode(batch, note_seq)
    except UNENCODABLE as error:
        raise refused(error) from error
    if any(len(body.data) > GREATEST_PAYLOAD - PREFIX_SIZE for body in bodies):
        raise EventRefusedError(f"an event is longer than {GREATEST_PAYLOAD - PREFIX_SIZE:,} bytes")
    return bodies


def _encode(batch: Batch, note_seq: int) -> list[Body]:
    companions = _Companions(batch)
    bodies = []
    for seq, user_id, event in _in_order(batch):
        document = companions.of_event(seq, user_id)
        if not isinstance(event, Transition) and not document and _is_plain(event):
            bodies.append(Body(SUCCESS, seq, _plain(event)))
            continue
        if isinstance(event, Transition):
            document |= {"user_id": user_id, "transition": _transition_document(event)}
        else:
            document["outcome"] = _outcome_values(event)
        bodies.append(Body(EVENT, seq, _to_json(document).encode()))
    if note := companions.left_over():
        bodies.append(Body(NOTE, note_seq, _to_json(note).encode()))
    return bodies


def _in_order(batch: Batch) -> list[tuple[int, int, OutcomeRow | Transition]]:
    events: list[tuple[int, int, OutcomeRow | Transition]] = [
        (outcome[2], outcome[1], outcome) for outcome in batch.outcomes
    ]
    events += [(each.event_id.writer_seq, user_id, each) for user_id, each in batch.transitions]
    return sorted(events, key=itemgetter(0))


def _is_plain(row: OutcomeRow) -> bool:
    return (
        row[6] == _KIND_SUCCESS
        and row[7] == _COUNTED
        and row[3] is not None
        and row[8:12] == (None, None, None, None)
        and row[13] is None
        and row[14] is None
    )


def _plain(row: OutcomeRow) -> bytes:
    at, user_id, _, duration, generation, era = row[:6]
    return _pack_success_body(user_id, at, duration, generation, era) + encoded_name(row[12])


class _Companions:
    """What goes with the events of a batch, handed to the records that it is to stand in."""

    def __init__(self, batch: Batch) -> None:
        self._newcomers = dict(batch.newcomers)
        self._gaps = [list(gap) for gap in batch.gaps]
        self._marks: dict[int, list[list[object]]] = {}
        for mark in batch.marks:
            self._marks.setdefault(mark.writer_seq, []).append(_mark_values(mark))
        self._source = batch.source

    def of_event(self, seq: int, user_id: int) -> dict[str, Any]:
        document: dict[str, Any] = {}
        if self._gaps:
            document["gaps"], self._gaps = self._gaps, []
        if user_id in self._newcomers:
            document["newcomers"] = [[user_id, self._newcomers.pop(user_id).to_document()]]
        if seq in self._marks:
            document["marks"] = self._marks.pop(seq)
        if self._source is not Source.LIVE:
            document["source"] = int(self._source)
        return document

    def left_over(self) -> dict[str, Any]:
        """Give what belongs to no event of the batch."""
        document: dict[str, Any] = {
            "gaps": self._gaps,
            "newcomers": [[user_id, policy.to_document()] for user_id, policy in self._newcomers.items()],
            "marks": [values for of_event in self._marks.values() for values in of_event],
        }
        return {name: values for name, values in document.items() if values}


def _outcome_values(row: OutcomeRow) -> list[object]:
    values: list[object] = list(row)
    values[11] = None if row[11] is None else str(row[11])
    values[12], values[13] = _cleaned(row[12]), _cleaned(row[13])
    return values


def _mark_values(mark: Mark) -> list[object]:
    return [*mark[:5], _failure_values(mark.last_failure)]


def _failure_values(failure: Failure | None) -> list[object] | None:
    if failure is None:
        return None
    return [
        *failure.event_id,
        failure.at,
        failure.error_type,
        failure.error_message,
        failure.operation,
        failure.duration_us,
    ]


def _transition_document(transition: Transition) -> dict[str, Any]:
    document = {name: getattr(transition, name) for name in Transition.__dataclass_fields__}
    del document["event_id"]  # it is the record's
    # Where they say nothing, so that a record is what it always was.
    if not transition.forced:
        del document["forced"]
    for name in ("suspension", "success_count", "erasure_digest"):
        if not document[name]:
            del document[name]
    if transition.suspension is not None:
        suspension = transition.suspension
        document["suspension"] = [suspension.actor, suspension.reason, suspension.at]
    return document | {
        "policy": transition.policy.to_document(),
        "last_failure": _failure_values(transition.last_failure),
        "causes": [_failure_values(cause) for cause in transition.causes],
    }


class Decoded:
    """What was read from records, on its way into a batch."""

    def __init__(self, writer_id: int) -> None:
        self.event_count = 0
        self._writer_id = writer_id
        self._source = Source.LIVE
        self._seqs: list[int] = []
        self._outcomes: list[OutcomeRow] = []
        self._transitions: list[UserTransition] = []
        self._marks: list[Mark] = []
        self._newcomers: dict[int, Policy] = {}
        self._gaps: list[Gap] = []

    def take_success(self, seq: int, payload: bytes) -> None:
        user_id, at, duration, generation, era = _unpack_success_body(payload, PREFIX_SIZE)
        operation = _decoded_name(payload[SUCCESS_SIZE:])
        self._outcomes.append(
            (at, user_id, seq, duration, generation, era, _KIND_SUCCESS, _COUNTED,
             None, None, None, None, operation, None, None)
        )  # fmt: skip
        self._note_event(seq)

    def take_document(self, seq: int, payload: bytes) -> None:
        """Take an event or a note: as a whole, or an exception and nothing of it."""
        document = _from_json(payload[PREFIX_SIZE:].decode())
        part = _Part(EventId(self._writer_id, seq), document)
        if part.outcome is not None:
            self._outcomes.append(part.outcome)
        if part.transition is not None:
            self._transitions.append(part.transition)
        self._marks += part.marks
        self._newcomers = part.newcomers | self._newcomers
        self._gaps += part.gaps
        self._source = part.source
        if part.outcome is not None or part.transition is not None:
            self._note_event(seq)

    def _note_event(self, seq: int) -> None:
        self.event_count += 1
        self._seqs.append(seq)

    def as_batch(self, after_seq: int, *, with_all_newcomers: bool) -> Batch | None:
        """Give it as a batch, None if it is nothing.

        With all newcomers, those whose row may be missing because its record was damaged are named as well.
        """
        if not (self._seqs or self._gaps or self._marks or self._newcomers):
            return None
        times = list(self._times())
        return Batch(
            writer_id=self._writer_id,
            batch_no=0,
            first_seq=self._seqs[0] if self._seqs else after_seq + 1,
            last_seq=self._seqs[-1] if self._seqs else after_seq,
            source=self._source,
            previous_digest=None,
            earliest=min(times, default=0),
            latest=max(times, default=0),
            outcomes=self._outcomes,
            transitions=self._transitions,
            marks=self._marks,
            newcomers={**self._suspected(), **self._newcomers} if with_all_newcomers else self._newcomers,
            gaps=self._gaps,
        )

    def _times(self) -> Iterator[int]:
        if self._seqs:
            yield from (row[0] for row in self._outcomes)
            yield from (each.transition.at for each in self._transitions)
        else:
            yield from (time for gap in self._gaps for time in (gap.first_at, gap.last_at))

    def _suspected(self) -> Mapping[int, Policy]:
        users = [each.user_id for each in self._transitions] + [mark.user_id for mark in self._marks]
        return dict.fromkeys(users, Policy())


class _Part:
    """What one document says."""

    def __init__(self, event_id: EventId, document: Mapping[str, Any]) -> None:
        self.outcome = _present(_read_outcome, document.get("outcome"))
        self.transition: UserTransition | None = None
        if "transition" in document:
            transition = _read_transition(event_id, document["transition"])
            self.transition = UserTransition(document["user_id"], transition)
        self.marks = [_read_mark(values) for values in document.get("marks", ())]
        self.newcomers = {
            user_id: Policy.from_document(policy) for user_id, policy in document.get("newcomers", ())
        }
        self.gaps = [Gap(GapReason(values[0]), *values[1:]) for values in document.get("gaps", ())]
        self.source = Source(document.get("source", Source.LIVE))


def _present(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else read(value)


def _read_outcome(values: list[Any]) -> OutcomeRow:
    values[11] = _present(UUID, values[11])
    at, user_id, seq, duration, generation, era, kind, verdict, probe, count, attempt, trace_id, *texts = (
        values
    )
    operation, error_type, message = texts
    return (
        at, user_id, seq, duration, generation, era, kind, verdict,
        probe, count, attempt, trace_id, operation, error_type, message,
    )  # fmt: skip


def _read_mark(values: list[Any]) -> Mark:
    user_id, seq, kind, at, era, last_failure = values
    return Mark(user_id, seq, MarkKind(kind), at, era, _present(_read_failure, last_failure))


def _read_failure(values: list[Any]) -> Failure:
    writer_id, seq, *rest = values
    return Failure(EventId(writer_id, seq), *rest)


def _read_suspension(values: list[Any]) -> Suspension:
    return Suspension(*values)


def _read_event_id(values: list[Any]) -> EventId:
    return EventId(*values)


def _read_transition(event_id: EventId, document: Mapping[str, Any]) -> Transition:
    known = {name: document[name] for name in Transition.__dataclass_fields__ if name in document}
    return Transition(
        **known
        | {
            "event_id": event_id,
            "kind": Kind(document["kind"]),
            "follows": _present(_read_event_id, document["follows"]),
            "from_state": CircuitState(document["from_state"]),
            "to_state": CircuitState(document["to_state"]),
            "policy": Policy.from_document(document["policy"]),
            "last_failure": _present(_read_failure, document["last_failure"]),
            "causes": tuple(_read_failure(values) for values in document["causes"]),
            "opened_by": _present(_read_event_id, document["opened_by"]),
            "suspension": _present(_read_suspension, document.get("suspension")),
        }
    )
