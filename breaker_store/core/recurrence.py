"""How a breaker's trips recur: how many lately, at which hour of the day, and how long each takes to pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from breaker_store.core.events import ENDINGS, TROUBLES, CircuitState, Kind
from breaker_store.core.wording import hour_of_day

DAY_US: Final = 24 * 3_600 * 1_000_000
WEEK_US: Final = 7 * DAY_US

FEWEST_HOURS: Final = 5
FEWEST_DAYS: Final = 3

HOUR_RULE: Final = (
    f"The usual hour is named if it tripped in at least {FEWEST_HOURS} different hours of at least {FEWEST_DAYS} days, "
    "and at least half of them are that hour of the day (UTC), the one before or the one after."
)


class Step(NamedTuple):
    """A transition, as far as trips go. Between two endings only the first opening matters: others may be left out."""

    kind: Kind
    at: int


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How often a breaker tripped up to a moment.

    Attributes:
        up_to: the moment.
        since: from when on trips were looked at; None if all were.
        in_day, in_week: trips in the 24 hours and the 7 days up to it; at least so many if `since` is later than that.
        trips: all that were looked at.
        usual_hour: see `HOUR_RULE`; None if there is none.
        mean_recovery_us: from a trip to its end, over `recoveries` trips that have ended; None if none has.

    """

    up_to: int
    since: int | None
    in_day: int
    in_week: int
    trips: int
    usual_hour: int | None
    mean_recovery_us: int | None
    recoveries: int

    @property
    def week_is_cut(self) -> bool:
        return self.since is not None and self.since > self.up_to - WEEK_US


class _Trip(NamedTuple):
    at: int
    ended_at: int | None


def recur(steps: Sequence[Step], up_to: int, *, is_cut: bool = False) -> Recurrence:
    """Work out how trips recur from a breaker's transitions, oldest first; `is_cut` if older ones are left out."""
    trips = [trip for trip in _trips(steps, is_cut) if trip.at <= up_to]
    spans = [trip.ended_at - trip.at for trip in trips if trip.ended_at is not None]
    return Recurrence(
        up_to=up_to,
        since=steps[0].at if is_cut and steps else None,
        in_day=sum(trip.at > up_to - DAY_US for trip in trips),
        in_week=sum(trip.at > up_to - WEEK_US for trip in trips),
        trips=len(trips),
        usual_hour=_usual_hour([trip.at for trip in trips]),
        mean_recovery_us=sum(spans) // len(spans) if spans else None,
        recoveries=len(spans),
    )


def _trips(steps: Iterable[Step], is_cut: bool) -> list[_Trip]:
    """Find the openings of a closed breaker; where the beginning is cut off, only from the first ending on."""
    trips: list[_Trip] = []
    state = None if is_cut else CircuitState.CLOSED
    for step in steps:
        if step.kind in ENDINGS:
            if trips and trips[-1].ended_at is None:
                trips[-1] = trips[-1]._replace(ended_at=step.at)
            state = CircuitState.CLOSED
        elif step.kind in TROUBLES:
            if state is CircuitState.CLOSED and step.kind is Kind.OPENED:
                trips.append(_Trip(step.at, None))
            state = CircuitState.OPEN
    return trips


def _usual_hour(times: Sequence[int]) -> int | None:
    # Each hour once: many trips in one are one incident.
    tripped = {(at // DAY_US, hour_of_day(at)) for at in times}
    if len(tripped) < FEWEST_HOURS or len({day for day, _ in tripped}) < FEWEST_DAYS:
        return None
    hours = Counter(hour for _, hour in tripped)

    def around(hour: int) -> int:
        return hours[(hour - 1) % 24] + hours[hour] + hours[(hour + 1) % 24]

    best = max(range(24), key=lambda hour: (around(hour), hours[hour], -hour))
    return best if 2 * around(best) >= len(tripped) else None
