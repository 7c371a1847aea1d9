"""Questions about one breaker or all of them, and the answers, as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from breaker_store.api.schemas.answers import Answer
from breaker_store.api.schemas.parameters import Instant, KindName, TransitionKindName
from breaker_store.core.cleaning import NAME_LIMIT, TEXT_LIMIT
from breaker_store.core.events import Suspension
from breaker_store.core.policy import GREATEST_COUNT, GREATEST_TIMEOUT_SECONDS, Policy
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.history import EventItem, TransitionItem
from breaker_store.postgres.queries import DEFAULT_PAGE, LARGEST_PAGE, Cursor, HistoryFilter, Summary
from breaker_store.postgres.recorders import DEFAULT_HOURS, RecorderItem
from breaker_store.postgres.standing import Standing

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


class ActionRequest(BaseModel):
    """Why somebody acts; kept with what they do."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(None, max_length=TEXT_LIMIT)


class ForceOpenRequest(ActionRequest):
    """How long a breaker is forced open: without an end until it is released."""

    expires_in_seconds: float | None = Field(
        None,
        gt=0,
        le=GREATEST_TIMEOUT_SECONDS,
        allow_inf_nan=False,
        description="After so long a call may try.",
    )
    expires_at: Instant | None = Field(
        None, description="From this time on a call may try; at most ten years ahead."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.expires_in_seconds is not None and self.expires_at is not None:
            raise ValueError("expires_in_seconds and expires_at exclude each other")
        return self


def _whole(value: object) -> object:
    # To JSON 10.0 is as whole a number as 10.
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Count = Annotated[int, Field(ge=1, le=GREATEST_COUNT, strict=True), BeforeValidator(_whole)]
_ErrorNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=NAME_LIMIT, pattern=r"^[^\x00-\x20\x7f]+$")]],
    Field(max_length=100),
]


class PolicyRequest(ActionRequest):
    """The rules that a user gets. What is left out stays as it is in force; so does a number that is null."""

    failure_threshold: _Count | None = Field(None, description="Failures in a row that open it.")
    timeout_seconds: float | None = Field(
        None, ge=0, le=GREATEST_TIMEOUT_SECONDS, allow_inf_nan=False, description="How long it then refuses."
    )
    success_threshold: _Count | None = Field(None, description="Successful probes that close it.")
    half_open_max_calls: _Count | None = Field(None, description="Probes that may run at once.")
    counted_errors: _ErrorNames | None = Field(
        None, description="Names of exceptions that are failures; null is every `Exception`."
    )
    ignored_errors: _ErrorNames = Field(
        [], description="Names of those that are not, though they are counted."
    )

    @model_validator(mode="after")
    def _makes_a_policy(self) -> Self:
        Policy(**self.changes())
        return self

    def changes(self) -> dict[str, Any]:
        """Give the fields of a policy that were given."""
        given = self.model_dump(exclude_unset=True, exclude={"reason"})
        return {name: value for name, value in given.items() if value is not None or name == "counted_errors"}


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


class PolicyBody(BaseModel):
    """The rules in force. Of a user without their own, those of the breaker's last transition."""

    failure_threshold: int
    timeout_seconds: float
    success_threshold: int
    half_open_max_calls: int
    counted_errors: list[str] | None
    ignored_errors: list[str]


class SuspensionBody(BaseModel):
    """By whom, why and since when a bot is suspended."""

    actor: str | None
    reason: str | None
    since: datetime


class StandingAnswer(Answer):
    """What all answers about how one breaker stands have in common."""

    circuit_breaker: CircuitBreakerBody
    sentence: str = Field(
        description="The same in words; of one that is forced open or suspended, by whom and why."
    )
    forced: bool = Field(description="Whether somebody opened it, by suspending the bot too.")
    suspension: SuspensionBody | None = Field(description="Null if the bot is not suspended.")
    policy: PolicyBody
    policy_is_own: bool = Field(description="Whether these rules were set for this user.")


def describe_standing(standing: Standing) -> dict[str, Any]:
    """Give what such an answer is made of."""
    return {
        "circuit_breaker": standing.state,
        "sentence": standing.sentence,
        "forced": standing.forced,
        "suspension": _describe_suspension(standing.suspension),
        "policy": standing.policy.to_document(),
        "policy_is_own": standing.policy_is_own,
    }


def _describe_suspension(suspension: Suspension | None) -> SuspensionBody | None:
    if suspension is None:
        return None
    return SuspensionBody(actor=suspension.actor, reason=suspension.reason, since=to_datetime(suspension.at))


class StateAnswer(MomentAnswer, StandingAnswer):
    user_id: int


class ActionAnswer(StandingAnswer):
    message: str


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
