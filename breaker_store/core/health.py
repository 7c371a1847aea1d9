"""How a bot is: a fold of its recent outcomes, and what they are judged to mean.

A `Tally` is made of outcomes one by one, and two tallies of times that follow one another are added: so what was counted
minute by minute, what is folded from the events, and what is kept while they happen are the same. The weighted average
begins with the first call of the window, as the old monitor's began with the first call of the process; after a few
dozen calls that can't be seen any more.

The window is of whole minutes: the one that runs, and those before it. A bot is judged by it alone, not by its lifetime,
so that one that recovered is healthy again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from typing import Final

from breaker_store.core.events import CircuitState, Kind, Outcome
from breaker_store.core.histogram import Histogram, add_counts

WEIGHT: Final = 0.3
"""Of the newest call in the weighted average."""

MINUTE_US: Final = 60_000_000

NO_DURATIONS: Final = Histogram()

RATE_LIMIT_NAMES: Final = frozenset(
    {
        "FloodWait",
        "FloodWaitError",
        "RateLimitError",
        "RateLimited",
        "RetryAfter",
        "SlowDown",
        "TelegramRetryAfter",
        "TooManyRequests",
    }
)
"""The names, without their modules, of errors by which clients' libraries say that calls come too fast."""


class Status(StrEnum):
    """How a bot is; see `judge`."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    SUSPENDED = "suspended"


class Overall(StrEnum):
    """How a fleet is: by the share of its bots that are healthy."""

    EXCELLENT = "excellent"
    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a bot is not healthy; those of the monitor that this takes the place of.

    Attributes:
        window_minutes: how many whole minutes the window has, the one that runs among them.
        degraded_error_rate, unhealthy_error_rate: failures among the calls that were made, 0 to 1.
        sustained_ms: degraded if the mean of all the window's calls is so long.
        slow_ms: degraded if the weighted average is.
        unhealthy_failures: failures in a row, up to now.

    """

    window_minutes: int = 15
    degraded_error_rate: float = 0.2
    unhealthy_error_rate: float = 0.5
    sustained_ms: float = 1_000.0
    slow_ms: float = 3_000.0
    unhealthy_failures: int = 5

    def window_begin(self, now: int) -> int:
        """Give the first microsecond of the window."""
        return (now // MINUTE_US - self.window_minutes + 1) * MINUTE_US


DEFAULT_THRESHOLDS: Final = Thresholds()


@dataclass(frozen=True, slots=True)
class Tally:
    """What outcomes of a time add up to; times are Unix microseconds.

    Attributes:
        refusals: calls that the breaker refused: no requests that were made, and no failures.
        duration_us, durations: of the calls whose duration is known.
        weighted_us, weight_left: the weighted average of those as far as the calls in this tally make it, and how much
            what came before them still weighs in it.
        first_duration_us: of the first of them, None if there is none.
        failure_run: failures after the last success, or all of them if there is none.
        last_success_at: of the last call that went well; that calls come too fast is no such answer.
        error_types: of the failures that have one.
        last_error_type: of the last failure.
        is_rate_limited: whether the last call was answered that calls come too fast.

    """

    successes: int = 0
    failures: int = 0
    refusals: int = 0
    duration_us: int = 0
    durations: Histogram = NO_DURATIONS
    weighted_us: float = 0.0
    weight_left: float = 1.0
    first_duration_us: int | None = None
    failure_run: int = 0
    last_success_at: int | None = None
    last_failure_at: int | None = None
    last_error_type: str | None = None
    is_rate_limited: bool = False
    error_types: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, outcome: Outcome) -> Tally:
        """Give the tally of one outcome."""
        if outcome.kind is Kind.REJECTED:
            return cls(refusals=1 if outcome.count is None else outcome.count)
        failed = outcome.kind is Kind.FAILURE
        timed = cls._timed(outcome.duration_us)
        return cls(
            successes=int(not failed),
            failures=int(failed),
            duration_us=timed.duration_us,
            durations=timed.durations,
            weighted_us=timed.weighted_us,
            weight_left=timed.weight_left,
            first_duration_us=timed.first_duration_us,
            failure_run=int(failed),
            last_success_at=outcome.at if outcome.is_success else None,
            last_failure_at=outcome.at if failed else None,
            last_error_type=outcome.error_type if failed else None,
            is_rate_limited=says_too_fast(outcome.error_type),
            error_types={outcome.error_type: 1} if failed and outcome.error_type is not None else {},
        )

    @classmethod
    def _timed(cls, duration_us: int | None) -> Tally:
        if duration_us is None:
            return cls()
        return cls(
            duration_us=duration_us,
            durations=Histogram.of([duration_us]),
            weighted_us=WEIGHT * duration_us,
            weight_left=1 - WEIGHT,
            first_duration_us=duration_us,
        )

    def __add__(self, later: Tally) -> Tally:
        """Add what came after; the order of the two matters."""
        last = later if later.calls else self
        return Tally(
            successes=self.successes + later.successes,
            failures=self.failures + later.failures,
            refusals=self.refusals + later.refusals,
            duration_us=self.duration_us + later.duration_us,
            durations=self.durations + later.durations,
            weighted_us=self.weighted_us * later.weight_left + later.weighted_us,
            weight_left=self.weight_left * later.weight_left,
            first_duration_us=later.first_duration_us
            if self.first_duration_us is None
            else self.first_duration_us,
            failure_run=later.failure_run + (0 if later.successes else self.failure_run),
            last_success_at=self.last_success_at if later.last_success_at is None else later.last_success_at,
            last_failure_at=self.last_failure_at if later.last_failure_at is None else later.last_failure_at,
            last_error_type=later.last_error_type if later.failures else self.last_error_type,
            is_rate_limited=last.is_rate_limited,
            error_types=add_counts(self.error_types, later.error_types),
        )

    @property
    def calls(self) -> int:
        """How many calls were made, refused ones not among them."""
        return self.successes + self.failures

    @property
    def requests(self) -> int:
        """How many calls were wanted, refused ones among them."""
        return self.calls + self.refusals

    @property
    def error_rate(self) -> float | None:
        """Which share of the calls that were made failed, 0 to 1; None if none was made."""
        return self.failures / self.calls if self.calls else None

    @property
    def mean_ms(self) -> float | None:
        """How long the calls took in the mean; None if of none it is known."""
        return self.duration_us / total / 1_000 if (total := self.durations.total) else None

    @property
    def average_ms(self) -> float | None:
        """The weighted average of how long they took, the newest weighing most; None if of none it is known."""
        if self.first_duration_us is None:
            return None
        return (self.weighted_us + self.weight_left * self.first_duration_us) / 1_000


def tally(outcomes: Iterable[Outcome]) -> Tally:
    """Add up the outcomes of one bot, in whatever order they come."""
    ordered = sorted(outcomes, key=lambda outcome: (outcome.at, outcome.event_id))
    return reduce(lambda before, outcome: before + Tally.of(outcome), ordered, Tally())


def says_too_fast(error_type: str | None) -> bool:
    """Tell whether a call's error is the service's word that calls come too fast."""
    return error_type is not None and error_type.rpartition(".")[2] in RATE_LIMIT_NAMES


@dataclass(frozen=True, slots=True)
class Judgement:
    """A status, and the findings that made it, worst first; empty for a healthy bot."""

    status: Status
    findings: tuple[str, ...] = ()


def judge(  # noqa: PLR0913 - each is another fact
    *,
    error_rate: float | None,
    failure_run: int,
    mean_ms: float | None,
    average_ms: float | None,
    state: CircuitState,
    is_suspended: bool,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Judgement:
    """Judge a bot by its window, its breaker's state, and whether somebody suspended it."""
    if is_suspended:
        return Judgement(Status.SUSPENDED, ("suspended by an operator",))
    unhealthy = tuple(_unhealthy(error_rate, failure_run, state, thresholds))
    degraded = tuple(_degraded(error_rate, mean_ms, average_ms, state, thresholds))
    if unhealthy:
        return Judgement(Status.UNHEALTHY, unhealthy + degraded)
    return Judgement(Status.DEGRADED, degraded) if degraded else Judgement(Status.HEALTHY)


def _unhealthy(
    error_rate: float | None, failure_run: int, state: CircuitState, thresholds: Thresholds
) -> Iterable[str]:
    if error_rate is not None and error_rate >= thresholds.unhealthy_error_rate:
        yield f"{error_rate:.0%} of its calls failed"
    if failure_run >= thresholds.unhealthy_failures:
        yield f"{failure_run:,} failures in a row"
    if state is CircuitState.OPEN:
        yield "its breaker is open"


def _degraded(
    error_rate: float | None,
    mean_ms: float | None,
    average_ms: float | None,
    state: CircuitState,
    thresholds: Thresholds,
) -> Iterable[str]:
    if (
        error_rate is not None
        and thresholds.degraded_error_rate <= error_rate < thresholds.unhealthy_error_rate
    ):
        yield f"{error_rate:.0%} of its calls failed"
    if average_ms is not None and average_ms >= thresholds.slow_ms:
        yield f"calls take {average_ms:,.0f} ms at present"
    if mean_ms is not None and mean_ms >= thresholds.sustained_ms:
        yield f"calls took {mean_ms:,.0f} ms in the mean"
    if state is CircuitState.HALF_OPEN:
        yield "its breaker is half-open"


EXCELLENT_SHARE: Final = 0.9
GOOD_SHARE: Final = 0.7
FAIR_SHARE: Final = 0.5


def judge_fleet(healthy: int, bots: int) -> Overall:
    """Judge a fleet by how many of its bots are healthy; one without bots is excellent."""
    share = healthy / bots if bots else 1.0
    if share >= EXCELLENT_SHARE:
        return Overall.EXCELLENT
    if share >= GOOD_SHARE:
        return Overall.GOOD
    return Overall.FAIR if share >= FAIR_SHARE else Overall.POOR
