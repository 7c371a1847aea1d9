"""Questions about all breakers at once, in pages, and the answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from breaker_store.api.schemas.answers import Answer
from breaker_store.api.schemas.breakers import KINDS_DESCRIPTION, PageQuery
from breaker_store.api.schemas.parameters import TransitionKindName
from breaker_store.core.cleaning import TEXT_LIMIT
from breaker_store.core.events import CircuitState
from breaker_store.postgres.breaker_list import BreakerCursor, BreakerFilter, BreakerItem, BreakerOrder
from breaker_store.postgres.history import TransitionItem
from breaker_store.postgres.queries import DEFAULT_PAGE, LARGEST_PAGE
from breaker_store.postgres.transition_list import TransitionCursor, TransitionFilter

# No name has a NUL, and Postgres takes none.
Name = Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT, pattern=r"^[^\x00]*$")]


class BreakersQuery(BaseModel):
    """Which breakers. A parameter that isn't known is refused: a mistyped filter would show too much."""

    model_config = ConfigDict(extra="forbid")

    cursor: str | None = Field(None, description="The `next_cursor` of the page before, as it was given.")
    limit: int = Field(DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
    state: list[CircuitState] = Field([], description="Only in these states; may be given several times.")
    error: Name | None = Field(None, description="Only those whose last trip was by this type of error.")
    sort: BreakerOrder = Field(
        BreakerOrder.LAST_TRANSITION,
        description="The newest change first, the most trips, or the greatest user id. In the first two a breaker that changes "
        "while pages are read jumps to the front, and so may be missed; by user id each comes once.",
    )

    def to_filter(self) -> BreakerFilter:
        """Give it as the library takes it.

        Raises:
            CursorError: the cursor is none of ours, or of the other order.

        """
        after = None if self.cursor is None else BreakerCursor.read(self.cursor, self.sort)
        return BreakerFilter(frozenset(self.state) or None, self.error, self.sort, self.limit, after)


class TransitionListQuery(PageQuery):
    """Which transitions of all breakers."""

    kind: list[TransitionKindName] = Field([], description=KINDS_DESCRIPTION)
    error: Name | None = Field(
        None, description="Only those that this type of error led to, as the last one."
    )
    actor: Name | None = Field(None, description="Only what this person or program did.")

    def to_filter(self) -> TransitionFilter:
        """Give it as the library takes it.

        Raises:
            CursorError: the cursor is none of ours.

        """
        after = None if self.cursor is None else TransitionCursor.read(self.cursor)
        kinds = frozenset(self.kind) or None
        return TransitionFilter(self.since, self.until, kinds, self.error, self.actor, self.limit, after)


class BreakersAnswer(Answer):
    breakers: list[BreakerItem]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")


class TransitionListAnswer(Answer):
    transitions: list[TransitionItem]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")
