"""What became of calls that were tried again: added up from their outcomes, each of which knows which attempt it was.

Outcomes don't say to which call they belong. But a call that was tried again has one second attempt, and a success is the
last attempt of its call: so calls can be counted, and which of them succeeded in the end. At the borders of the time
that is looked at this is off by the calls that reach across them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Self

from breaker_store.core.events import Kind, Outcome, Verdict
from breaker_store.core.health import says_too_fast

FIRST_ATTEMPT: Final = 1

DEFAULT_HOURS: Final = 24
MOST_HOURS: Final = 7 * 24
"""Of how much time retries are told."""


class Ending(StrEnum):
    """How an attempt ended; see `Category` for what was declined or came too fast."""

    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    RATE_LIMITED = "rate_limited"
    FAILED = "failed"


class Attempts(NamedTuple):
    """So many calls whose attempts are alike; `attempt` is 1 for first ones."""

    attempt: int
    ending: Ending
    error_type: str | None
    calls: int = 1

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Read the outcome of one call that was made."""
        ending = read_ending(outcome.kind, outcome.verdict, outcome.error_type)
        return cls(outcome.attempt or FIRST_ATTEMPT, ending, outcome.error_type)


def read_ending(kind: int, verdict: int, error_type: str | None) -> Ending:
    """Tell how the call ended that has such an outcome."""
    if says_too_fast(error_type):
        return Ending.RATE_LIMITED
    if kind == Kind.FAILURE:
        return Ending.FAILED
    if error_type is None:
        return Ending.SUCCEEDED
    return Ending.RATE_LIMITED if verdict == Verdict.NOT_COUNTED else Ending.DECLINED


@dataclass(frozen=True, slots=True)
class Retries:
    """What attempts add up to.

    Attributes:
        endings: of the attempts with each number, how many ended in which way.
        errors: of retries alone, how many ended with which type of error; those without a type are among none.

    """

    endings: dict[int, Counter[Ending]]
    errors: Counter[str]

    @property
    def first_attempts(self) -> int:
        return self.endings.get(FIRST_ATTEMPT, Counter()).total()

    @property
    def retries(self) -> int:
        return sum(endings.total() for attempt, endings in self.endings.items() if attempt > FIRST_ATTEMPT)

    @property
    def retried_calls(self) -> int:
        return self.endings.get(FIRST_ATTEMPT + 1, Counter()).total()

    @property
    def recovered_calls(self) -> int:
        """How many calls succeeded at a retry."""
        return sum(
            endings[Ending.SUCCEEDED] for attempt, endings in self.endings.items() if attempt > FIRST_ATTEMPT
        )

    @property
    def rate_limited(self) -> int:
        """How many answers, to any attempt, were that calls come too fast."""
        return sum(endings[Ending.RATE_LIMITED] for endings in self.endings.values())


def add_up(attempts: Iterable[Attempts]) -> Retries:
    endings: defaultdict[int, Counter[Ending]] = defaultdict(Counter)
    errors: Counter[str] = Counter()
    for each in attempts:
        endings[each.attempt][each.ending] += each.calls
        if each.attempt > FIRST_ATTEMPT and each.error_type is not None:
            errors[each.error_type] += each.calls
    return Retries(dict(sorted(endings.items())), errors)
