"""Staged resets as they are asked for and told of."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from breaker_store.api.schemas.answers import Answer
from breaker_store.api.schemas.lists import Name
from breaker_store.api.schemas.parameters import Instant, read_integer
from breaker_store.core.cleaning import TEXT_LIMIT
from breaker_store.core.events import CircuitState
from breaker_store.core.staged_resets import FASTEST_PER_SECOND, SLOWEST_PER_SECOND
from breaker_store.postgres.staged_resets import (
    FAILURES_SHOWN,
    LARGEST,
    LIST_LIMIT,
    StagedFilter,
    StagedResetFailure,
    StagedResetItem,
)


def _number(text: object) -> int:
    return read_integer(text, "a staged reset's number")


StagedResetId = Annotated[
    int,
    BeforeValidator(_number),
    WithJsonSchema({"type": "integer", "format": "int64"}),
    Path(description="The staged reset's number."),
]


class MatchingQuery(BaseModel):
    """Which breakers: at least by error or by time. A field that isn't known is refused: too many would match."""

    model_config = ConfigDict(extra="forbid")

    error: Name | None = Field(None, description="Those that tripped by this type of error.")
    since: Instant | None = Field(
        None, description="Those that tripped from this time on, however often they opened again later."
    )
    state: list[Literal[CircuitState.OPEN, CircuitState.HALF_OPEN]] = Field(
        [], description="Only in these states; both, if none is given."
    )

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        self.to_filter()
        return self

    def to_filter(self) -> StagedFilter:
        if self.state:
            return StagedFilter(self.error, self.since, frozenset(self.state))
        return StagedFilter(self.error, self.since)


class StagedResetRequest(MatchingQuery):
    """Which breakers are reset, how fast and why."""

    per_second: float = Field(
        ge=SLOWEST_PER_SECOND,
        le=FASTEST_PER_SECOND,
        description="How many are reset in any second at most; 0.5 is one every two seconds.",
    )
    reason: str | None = Field(
        None, max_length=TEXT_LIMIT, description="Kept with each reset, with the number."
    )


class MatchesAnswer(Answer):
    matched: int = Field(description=f"How many there are now; {LARGEST + 1} stands for that or more.")
    largest: int = Field(LARGEST, description="How many may be staged at once.")


class StagedResetAnswer(Answer):
    staged_reset: StagedResetItem


class StagedResetDetailsAnswer(StagedResetAnswer):
    first_failures: list[StagedResetFailure] = Field(description=f"At most {FAILURES_SHOWN}, oldest first.")


class StagedResetsAnswer(Answer):
    staged_resets: list[StagedResetItem] = Field(description=f"Newest first, at most {LIST_LIMIT}.")
