"""The events of a breaker's history as they are shown.

They are read with patience: what a newer version wrote, a kind or a detail that this one doesn't know, is shown as far
as it can be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from breaker_store.core.events import EventId, Kind, Verdict
from breaker_store.postgres.stored_events import read_trace_id

STORED_KINDS: Final = tuple(kind for kind in Kind if kind is not Kind.UNRECOGNIZED)
"""The kinds of events that this version knows."""

_KIND_LABELS: Final = {kind.value: kind.label for kind in STORED_KINDS}
_VERDICT_LABELS: Final = {verdict.value: verdict.name.lower() for verdict in Verdict}
_MICROSECONDS_IN_MILLISECOND: Final = 1_000
_NO_DETAILS: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Cause:
    """A failure that led to a transition, kept with it; `trace_id` if its call was traced."""

    id: str
    at: datetime
    error_type: str | None
    error_message: str | None
    operation: str | None
    duration_ms: float | None
    trace_id: UUID | None


@dataclass(frozen=True, slots=True)
class TransitionItem:
    """A transition in a breaker's history.

    Attributes:
        position: its number in the order of all breakers' transitions; None if it is superseded: another process's
            transition took its place.
        policy: the rules in force after it.
        retry_at: when an open breaker lets a call try.
        remark: of a trip, which action it came after; of an action, what came of it so far; None otherwise, and on the
            stream, which tells of each when it happens.

    """

    id: str
    user_id: int
    kind: str
    at: datetime
    from_state: str | None
    to_state: str | None
    generation: int
    era: int
    version: int | None
    position: int | None
    superseded: bool
    reason: str | None
    actor: str | None
    failure_count: int | None
    causes: list[Cause]
    opened_by: str | None
    retry_at: datetime | None
    policy: dict[str, Any] | None
    remark: str | None = None


# Not frozen: that would make it four times as slow to make, and a page has fifty.
@dataclass(slots=True)
class EventItem:
    """An event in a breaker's history: an outcome, or a transition with the last five fields.

    Attributes:
        kind: its name, or `kind-42` for one that this version doesn't know.
        verdict: whether an outcome counted for the state; None for transitions.
        duration_ms: of refusals: from the first to the last that this event stands for.
        count: of refusals: how many this event stands for.
        attempt: from 2 on for a call that was tried again; None for a first attempt.
        probe: the number of the probe in its half-open round, from 1.
        remark: as of a `TransitionItem`; and of a transition that is superseded, that it is.

    """

    id: str
    kind: str
    at: datetime
    generation: int
    verdict: str | None
    duration_ms: float | None
    operation: str | None
    error_type: str | None
    error_message: str | None
    count: int | None
    attempt: int | None
    trace_id: UUID | None
    probe: int | None
    from_state: str | None
    to_state: str | None
    reason: str | None
    actor: str | None
    remark: str | None = None


def read_transition_item(row: Mapping[str, Any]) -> TransitionItem:
    """Read a row of `breaker_transitions`; its details may be text, as asyncpg gives them, or already parsed."""
    details = _parsed(row["details"])
    return TransitionItem(
        id=str(EventId(row["writer_id"], row["writer_seq"])),
        user_id=row["user_id"],
        kind=kind_label(row["kind"]),
        at=row["occurred_at"],
        from_state=details.get("from"),
        to_state=details.get("to"),
        generation=row["generation"],
        era=row["era"],
        version=row["version"],
        position=row["position"],
        superseded=row["position"] is None,
        reason=details.get("reason"),
        actor=details.get("actor"),
        failure_count=details.get("failure_count"),
        causes=[read_cause(cause) for cause in details.get("causes") or ()],
        opened_by=details.get("opened_by"),
        retry_at=_time(details.get("retry_at")),
        policy=details.get("policy"),
    )


EVENT_COLUMNS: Final = (
    "writer_id, writer_seq, kind, occurred_at, generation, verdict, duration_us,"
    " operation, error_type, error_message, count, attempt, trace_id, probe, details, user_id, version, position"
)
"""What an event is read from, in the order of `EventItem`, and then where a transition stands."""


_SUPERSEDED: Final = "superseded: another process was first"


def read_event_item(row: Sequence[Any]) -> EventItem:
    """Read a row of `EVENT_COLUMNS`: by their order, since by their names it takes twice as long."""
    writer_id, writer_seq, kind, at, generation, verdict, duration_us, *rest = row
    (
        operation,
        error_type,
        error_message,
        count,
        attempt,
        trace_id,
        probe,
        document,
        _user_id,
        version,
        position,
    ) = rest
    details = _NO_DETAILS if document is None else _parsed(document)
    return EventItem(
        f"{writer_id}-{writer_seq}",
        _KIND_LABELS.get(kind) or kind_label(kind),
        at,
        generation,
        None if verdict is None else _VERDICT_LABELS.get(verdict) or f"verdict-{verdict}",
        None if duration_us is None else duration_us / _MICROSECONDS_IN_MILLISECOND,
        operation,
        error_type,
        error_message,
        count,
        attempt,
        trace_id,
        probe,
        details.get("from"),
        details.get("to"),
        details.get("reason"),
        details.get("actor"),
        _SUPERSEDED if version is not None and position is None else None,
    )


def _parsed(document: Any) -> Mapping[str, Any]:
    """Give the details of an event, which a connection may have parsed already."""
    parsed: Mapping[str, Any] | None = json.loads(document) if isinstance(document, str) else document
    return parsed or {}


def read_cause(document: Mapping[str, Any]) -> Cause:
    """Read a failure as it stands in the details of transitions and in the rows of breakers."""
    return Cause(
        id=document["id"],
        at=datetime.fromisoformat(document["at"]),
        error_type=document.get("error_type"),
        error_message=document.get("error_message"),
        operation=document.get("operation"),
        duration_ms=_milliseconds(document.get("duration_us")),
        trace_id=read_trace_id(document),
    )


def kind_label(number: int) -> str:
    """Name a kind of event; one of a newer version by its number."""
    return _KIND_LABELS.get(number, f"kind-{number}")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / _MICROSECONDS_IN_MILLISECOND
