"""Questions about the health of bots, and the answers, as they go over the wire."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from breaker_store.api.schemas.answers import Answer
from breaker_store.api.schemas.parameters import Instant
from breaker_store.core.buckets import Bucket
from breaker_store.core.retries import DEFAULT_HOURS, MOST_HOURS
from breaker_store.postgres.bot_health import BotHealth
from breaker_store.postgres.fleet_health import FleetHealth, UnhealthyBot, UnhealthyCursor
from breaker_store.postgres.fleet_history import FleetHistoryItem
from breaker_store.postgres.health_history import LARGEST_HISTORY, HistoryItem, HistoryRange
from breaker_store.postgres.queries import DEFAULT_PAGE, LARGEST_PAGE
from breaker_store.postgres.retry_statistics import RetryStatistics


class UnhealthyQuery(BaseModel):
    """Which part of the list."""

    model_config = ConfigDict(extra="forbid")

    cursor: str | None = Field(None, description="The `next_cursor` of the page before, as it was given.")
    limit: int = Field(DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)

    def after(self) -> UnhealthyCursor | None:
        """Give where the page before ended.

        Raises:
            CursorError: the cursor is none of ours.

        """
        return None if self.cursor is None else UnhealthyCursor.read(self.cursor)


class HealthHistoryQuery(BaseModel):
    """Of which time, and by what. A parameter that isn't known is refused: a mistyped one would tell of another time."""

    model_config = ConfigDict(extra="forbid")

    bucket: Bucket = Field(Bucket.HOUR, description="How long the parts are; all begin in UTC.")
    since: Instant | None = Field(
        None,
        description="From the part that holds this time on; without it, an hour of minutes, a day of hours, or 30 days.",
    )
    until: Instant | None = Field(
        None, description="Up to this time, without it; without it, or if it is to come, up to now."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError("since is after until")
        return self

    def to_range(self) -> HistoryRange:
        return HistoryRange(self.bucket, self.since, self.until)


class RetriesQuery(BaseModel):
    """Of which time."""

    model_config = ConfigDict(extra="forbid")

    hours: int = Field(DEFAULT_HOURS, ge=1, le=MOST_HOURS, description="How long the time is.")
    until: Instant | None = Field(None, description="Up to this time, without it; without it, up to now.")


class FleetHealthAnswer(Answer):
    health: FleetHealth | None = Field(
        description="As of when the roll-ups judged all bots last; null if they never did."
    )


class UnhealthyBotsAnswer(Answer):
    as_of: datetime | None = Field(
        description="When the roll-ups judged all bots last; null if they never did, and the list says nothing."
    )
    bots: list[UnhealthyBot]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")


class BotHealthAnswer(Answer):
    health: BotHealth


class RetriesAnswer(Answer):
    retries: RetryStatistics


class _HistoryAnswer(Answer):
    """An answer that ends with its history."""

    def write_with(self, items: Iterable[str]) -> str:
        """Write the answer as JSON, with a history of items that are written already in the place of the empty one."""
        return f"{self.model_dump_json().removesuffix(']}')}{','.join(items)}]}}"


class HealthHistoryAnswer(_HistoryAnswer):
    user_id: int
    bucket: Bucket
    history: list[HistoryItem] = Field(
        description=f"Every part of the time, oldest first, at most {LARGEST_HISTORY:,}."
    )


class FleetHistoryAnswer(_HistoryAnswer):
    bucket: Bucket
    history: list[FleetHistoryItem] = Field(
        description=f"Every part of the time, oldest first, at most {LARGEST_HISTORY:,}."
    )
