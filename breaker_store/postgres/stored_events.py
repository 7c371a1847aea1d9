"""From stored rows back to events, read with patience: what a newer version wrote stops nobody."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from breaker_store.core.events import (
    CircuitState,
    EventId,
    Failure,
    Kind,
    Outcome,
    Permit,
    Suspension,
    Transition,
    Verdict,
)
from breaker_store.core.policy import Policy
from breaker_store.ports import UserTransition
from breaker_store.postgres.codec import DETAILS_VERSION, microseconds

logger = logging.getLogger(__name__)


def read_transition(row: Mapping[str, Any]) -> UserTransition:
    """Read a row of `breaker_transitions`; `details` may be text or already parsed.

    What this version can't read, since a newer one wrote it, is an unrecognized transition.
    """
    if not is_known_kind(row["kind"]) or (row["details_version"] or 0) > DETAILS_VERSION:
        return UserTransition(row["user_id"], _unrecognized(row, "comes from a newer version"))
    try:
        return UserTransition(row["user_id"], _read_known_transition(row))
    except (KeyError, ValueError, TypeError) as error:
        return UserTransition(row["user_id"], _unrecognized(row, f"can't be read ({error!r})"))


def _read_known_transition(row: Mapping[str, Any]) -> Transition:
    details = _parsed(row["details"])
    return Transition(
        kind=Kind(row["kind"]),
        event_id=EventId(row["writer_id"], row["writer_seq"]),
        at=microseconds(row["occurred_at"]),
        version=row["version"],
        generation=row["generation"],
        era=row["era"],
        follows=_read_optional_id(details["follows"]),
        from_state=CircuitState(details["from"]),
        to_state=CircuitState(details["to"]),
        policy=Policy.from_document(details["policy"]),
        policy_is_own=details["policy_is_own"],
        reason=details["reason"],
        actor=details["actor"],
        failure_count=details["failure_count"],
        last_failure=read_failure(details["last_failure"]),
        causes=tuple(filter(None, map(read_failure, details["causes"]))),
        opened_at=read_time(details["opened_at"]),
        opened_by=_read_optional_id(details["opened_by"]),
        retry_at=read_time(details["retry_at"]),
        forced=details.get("forced", False),
        suspension=_read_suspension(details.get("suspension")),
        success_count=details.get("success_count", 0),
        erasure_digest=details.get("erasure_digest"),
        position=row["position"],
    )


def _read_suspension(document: Mapping[str, Any] | None) -> Suspension | None:
    if document is None:
        return None
    return Suspension(document["actor"], document["reason"], _instant(document["at"]))


def list_kinds(kinds: Iterable[Kind]) -> str:
    """Write kinds as what stands within the parentheses of `kind IN (...)`."""
    return ", ".join(str(int(kind)) for kind in sorted(kinds))


def is_known_kind(number: int) -> bool:
    """Tell whether this version knows what such an event means; a newer one may have written others."""
    return number in KNOWN_KINDS


KNOWN_KINDS = frozenset(kind.value for kind in Kind if kind is not Kind.UNRECOGNIZED)
"""The numbers of the kinds of which this version knows what they mean."""


def _unrecognized(row: Mapping[str, Any], trouble: str) -> Transition:
    """Keep what stands in the columns."""
    return Transition(
        kind=Kind.UNRECOGNIZED,
        event_id=EventId(row["writer_id"], row["writer_seq"]),
        at=microseconds(row["occurred_at"]),
        version=row["version"],
        generation=row["generation"],
        era=row["era"],
        follows=None,
        from_state=CircuitState.CLOSED,
        to_state=CircuitState.CLOSED,
        policy=Policy(),
        reason=f"a transition of kind {row['kind']} {trouble} and is passed over",
        position=row["position"],
    )


def read_outcome(row: Mapping[str, Any]) -> Outcome:
    """Read a row of `breaker_outcomes`."""
    kind = Kind(row["kind"])
    if kind not in (Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED):
        raise ValueError(f"{kind!r} is not the kind of an outcome")
    return Outcome(
        kind=kind,
        event_id=EventId(row["writer_id"], row["writer_seq"]),
        at=microseconds(row["occurred_at"]),
        permit=Permit(row["generation"], row["era"], row["probe"] or 0),
        verdict=Verdict(row["verdict"]),
        duration_us=row["duration_us"],
        operation=row["operation"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        attempt=row["attempt"],
        trace_id=row["trace_id"],
        count=row["count"],
    )


def read_failure(document: Mapping[str, Any] | str | None) -> Failure | None:
    parsed = _parsed(document)
    if parsed is None:
        return None
    return Failure(
        event_id=read_event_id(parsed["id"]),
        at=_instant(parsed["at"]),
        error_type=parsed["error_type"],
        error_message=parsed["error_message"],
        operation=parsed["operation"],
        duration_us=parsed["duration_us"],
    )


def read_policy(document: Mapping[str, Any] | str | None) -> Policy:
    """Read a breaker's policy; None stands for the package's defaults, which also hold for one that can't be read."""
    parsed = _parsed(document)
    if parsed is None:
        return Policy()
    try:
        return Policy.from_document(parsed)
    except (ValueError, TypeError) as error:
        logger.error("a stored policy can't be read, the package's default holds instead: %r", error)  # noqa: TRY400 - it is all there is to say
        return Policy()


def read_event_id(text: str) -> EventId:
    """Read an event's id from its text, writer-seq.

    Raises:
        ValueError: it is none.

    """
    writer_id, separator, writer_seq = text.partition("-")
    if not separator:
        raise ValueError(f"{text!r} is not an event's id")
    return EventId(int(writer_id), int(writer_seq))


def _read_optional_id(text: str | None) -> EventId | None:
    return None if text is None else read_event_id(text)


def _instant(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


def read_time(text: str | None) -> int | None:
    """Read a time in the details of a transition."""
    return None if text is None else _instant(text)


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
