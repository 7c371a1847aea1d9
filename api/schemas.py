"""The questions and answers of the admin API, as they go over the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from breaker_store.core.cleaning import TEXT_LIMIT
from breaker_store.core.events import Kind
from breaker_store.postgres.history import STORED_KINDS, EventItem, TransitionItem
from breaker_store.postgres.queries import DEFAULT_PAGE, LARGEST_PAGE, Cursor, HistoryFilter, Summary
from breaker_store.postgres.recorders import DEFAULT_HOURS, RecorderItem
from breaker_store.runtime.registry import USER_IDS

_KINDS: Final = {kind.label: kind for kind in STORED_KINDS}
_TRANSITION_KINDS: Final = {label: kind for label, kind in _KINDS.items() if not kind.is_outcome}

_INTEGER: Final = re.compile("0|-?[1-9][0-9]{0,18}")


def _user_id(text: object) -> int:
    # Pydantic alone would take "1_0", "010" and "10.0" for 10, and there would be many addresses of one breaker.
    if not _INTEGER.fullmatch(str(text)) or int(str(text)) not in USER_IDS:
        raise ValueError("a user id is a whole number that fits in signed 64 bits")
    return int(str(text))


def _instant(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ValueError("a time is written as in 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset: Z, or +01:00 (+ is written %2B in an address)")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time is between the years 1 and 9999") from error


def _kind(label: object) -> Kind:
    return _known(label, _KINDS)


def _transition_kind(label: object) -> Kind:
    return _known(label, _TRANSITION_KINDS)


def _known(label: object, kinds: Mapping[str, Kind]) -> Kind:
    kind = kinds.get(str(label))
    if kind is None:
        raise ValueError(f"the kinds are {', '.join(kinds)}")
    return kind


UserId = Annotated[
    int,
    BeforeValidator(_user_id),
    WithJsonSchema({"type": "integer", "format": "int64"}),
    Path(description="Whose breaker."),
]
Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
KindName = Annotated[Kind, BeforeValidator(_kind), WithJsonSchema({"type": "string", "enum": list(_KINDS)})]
TransitionKindName = Annotated[
    Kind,
    BeforeValidator(_transition_kind),
    WithJsonSchema({"type": "string", "enum": list(_TRANSITION_KINDS)}),
]


class HistoryQuery(BaseModel):
    """Which part of a history. A parameter that isn't known is refused: a mistyped filter would show too much."""

    model_config = ConfigDict(extra="forbid")

    cursor: str | None = Field(None, description="The `next_cursor` of the page before, as it was given.")
    limit: int = Field(DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
    since: Instant | None = Field(None, description="From this time on.")
    until: Instant | None = Field(None, description="Up to this time, without it.")
    kind: list[KindName] = Field([], description="Only these kinds; may be given several times.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError("since is after until")
        return self

    def to_filter(self) -> HistoryFilter:
        """Give it as the library takes it.

        Raises:
            CursorError: the cursor is none of ours.

        """
        after = None if self.cursor is None else Cursor.read(self.cursor)
        return HistoryFilter(self.since, self.until, frozenset(self.kind) or None, self.limit, after)


class TransitionsQuery(HistoryQuery):
    kind: list[TransitionKindName] = Field([], description="Only these kinds; may be given several times.")


class RecordersQuery(BaseModel):
    """Which recorders are listed."""

    model_config = ConfigDict(extra="forbid")

    since_hours: int = Field(
        DEFAULT_HOURS,
        ge=1,
        le=8_760,
        description="Those that have reported in so many hours, or of whose events something was found missing.",
    )


class ResetRequest(BaseModel):
    """Why a breaker is reset; kept with the reset."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(None, max_length=TEXT_LIMIT)


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Answer(BaseModel):
    """What all answers begin with; `timestamp` is this server's time."""

    status: Literal["ok"] = "ok"
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))


class CircuitBreakerBody(BaseModel):
    """How a breaker stands; what `CircuitBreaker.get_state` gives."""

    state: Literal["closed", "open", "half_open"]
    failure_count: int = Field(
        description="Failures in a row; open and half-open, also those that opened it."
    )
    success_count: int = Field(description="Half-open: successful probes of this round.")
    failure_threshold: int
    success_threshold: int
    timeout_seconds: float
    timeout_remaining: float = Field(description="Seconds; 0 unless open, and when the next call may try.")
    last_failure_time: float | None = Field(description="Unix time, in seconds.")


class SummaryAnswer(Answer):
    summary: Summary


class StateAnswer(Answer):
    user_id: int
    circuit_breaker: CircuitBreakerBody


class ResetAnswer(Answer):
    message: str
    circuit_breaker: CircuitBreakerBody


class TransitionsAnswer(Answer):
    user_id: int
    transitions: list[TransitionItem]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")


class EventsAnswer(Answer):
    user_id: int
    events: list[EventItem]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")


class RecordersAnswer(Answer):
    recorders: list[RecorderItem] = Field(description="Newest report first, at most 1,000.")
    truncated: bool = Field(description="Whether there are more.")
