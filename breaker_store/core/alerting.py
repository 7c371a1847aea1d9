"""Which transitions people are told of, and which of them with one message.

A message holds what happened to many breakers for the same reason, each user once. What happened to one user stays in
its order: it joins a message only if the user is in no later one. So a receiver that takes messages in their order
never hears of a user's recovery before the trip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from breaker_store.core.events import (
    ENDINGS,
    PERMANENT_REASON,
    CircuitState,
    EventId,
    Failure,
    Kind,
    Transition,
)


class AlertKind(StrEnum):
    """What a message is about."""

    TRIPPED = "tripped"
    RECOVERED = "recovered"
    FORCED_OPEN = "forced_open"
    SUSPENDED = "suspended"


_BY_HAND: Final = {Kind.FORCED_OPEN: AlertKind.FORCED_OPEN, Kind.SUSPENDED: AlertKind.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Notice:
    """A transition that people are told of, without what they are not told: it is kept in memory for a while.

    Attributes:
        at: microseconds on the database's clock.
        cause: the last of its causes; of a trip, the failure that made it.
        ended: of a recovery, the openings that it ended, oldest first: the trip, and what was done by hand on top.

    """

    kind: AlertKind
    user_id: int
    position: int
    event_id: EventId
    at: int
    reason: str | None = None
    actor: str | None = None
    cause: Failure | None = None
    ended: tuple[Notice, ...] = ()

    @property
    def tripped_at_once(self) -> bool:
        """Whether its cause alone tripped the breaker, however few failures came before it."""
        return self.kind is AlertKind.TRIPPED and self.reason == PERMANENT_REASON

    @property
    def error(self) -> str | None:
        """The type of the error that tripped the breaker, or of the trip that ended; None if it is not known."""
        if self.kind is AlertKind.RECOVERED:
            return self.ended[0].error if self.ended else None
        return None if self.cause is None else self.cause.error_type


@dataclass(frozen=True, slots=True)
class Group:
    """What is told with one message: the same kind of thing for the same error, to each user once."""

    kind: AlertKind
    error: str | None
    notices: list[Notice] = field(default_factory=list)


def alert_kind(transition: Transition) -> AlertKind | None:
    """Tell what a transition is to people; None if nobody need hear of it.

    A recovery is one only if there was something to recover from: see `notice_of`.
    """
    if transition.is_trip:
        return AlertKind.TRIPPED
    if transition.kind in ENDINGS:
        return AlertKind.RECOVERED
    return _BY_HAND.get(transition.kind)


def notice_of(user_id: int, transition: Transition, ended: tuple[Notice, ...] = ()) -> Notice | None:
    """Give what people are told of a transition that won; None for nothing.

    `ended` holds the openings since the breaker was last well, for a transition that may end them. The reset of a
    breaker that was well is no news.
    """
    kind = alert_kind(transition)
    if kind is None or transition.position is None:
        return None
    if kind is AlertKind.RECOVERED and not ended and transition.from_state is CircuitState.CLOSED:
        return None
    return Notice(
        kind,
        user_id,
        transition.position,
        transition.event_id,
        transition.at,
        transition.reason,
        transition.actor,
        transition.causes[-1] if transition.causes and kind is AlertKind.TRIPPED else None,
        ended,
    )


def group_notices(notices: Iterable[Notice], largest: int) -> list[Group]:
    """Divide notices, in the order of their positions, into groups of at most `largest`, in the order to send them."""
    groups: list[Group] = []
    newest_by_reason: dict[tuple[AlertKind, str | None], int] = {}
    newest_by_user: dict[int, int] = {}
    for notice in notices:
        reason = (notice.kind, notice.error)
        number = newest_by_reason.get(reason, -1)
        is_full = number >= 0 and len(groups[number].notices) >= largest
        if number <= newest_by_user.get(notice.user_id, -1) or is_full:
            number = newest_by_reason[reason] = len(groups)
            groups.append(Group(*reason))
        groups[number].notices.append(notice)
        newest_by_user[notice.user_id] = number
    return groups
