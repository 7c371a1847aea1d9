"""Questions about one breaker or all of them, and the answers, as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from breaker_store.api.schemas.answers import Answer
from breaker_store.api.schemas.parameters import Instant, KindName, TransitionKindName
from breaker_store.core.cleaning import TEXT_LIMIT
from breaker_store.postgres.history import EventItem, TransitionItem
from breaker_store.postgres.queries import DEFAULT_PAGE, LARGEST_PAGE, Cursor, HistoryFilter, Summary
from breaker_store.postgres.recorders import DEFAULT_HOURS, RecorderItem

KINDS_DESCRIPTION: Final = "Only these kinds; may be given several times."


class MomentQuery(BaseModel):
    """Of which moment is asked. A parameter that isn't known is refused: a mistyped one would tell of another."""

    model_config = ConfigDict(extra="forbid")

    at: Instant | None = Field(None, description="What held at this instant; without it, what holds now.")


class PageQuery(BaseModel):
    """Which part of what happened, and when. A parameter that isn't known is refused: a mistyped filter would show too much."""

    model_config = ConfigDict(extra="forbid")

    cursor: str | None = Field(None, description="The `next_cursor` of the page before, as it was given.")
    limit: int = Field(DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
    since: Instant | None = Field(None, description="From this time on.")
    until: Instant | None = Field(None, description="Up to this time, without it.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError("since is after until")
        return self


class HistoryQuery(PageQuery):
    """Which part of a user's history."""

    kind: list[KindName] = Field([], description=KINDS_DESCRIPTION)

    def to_filter(self) -> HistoryFilter:
        """Give it as the library takes it.

        Raises:
            CursorError: the cursor is none of ours.

        """
        after = None if self.cursor is None else Cursor.read(self.cursor)
        return HistoryFilter(self.since, self.until, frozenset(self.kind) or None, self.limit, after)


class TransitionsQuery(HistoryQuery):
    kind: list[TransitionKindName] = Field([], description=KINDS_DESCRIPTION)


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


class MomentAnswer(Answer):
    at: datetime | None = Field(description="The instant that it tells of; null for now.")


class SummaryAnswer(MomentAnswer):
    summary: Summary


class StateAnswer(MomentAnswer):
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
