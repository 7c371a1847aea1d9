"""How a bot is, as its process sees it: the last minutes, kept in memory, judged as the log's health is judged.

The log knows more (`breaker-store health`, and the admin API): other processes, and what was before this one started.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from breaker_store.core.health import DEFAULT_THRESHOLDS, WEIGHT, Status, Thresholds, judge
from breaker_store.core.state import BreakerState

_MINUTE_NS = 60 * 1_000_000_000
_MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class BotHealth:
    """How one bot is.

    Attributes:
        status, findings: as the log's health would be judged; findings are worst first, none for a healthy bot.
        state: of its breaker.
        calls, failures, rate_limited, mean_ms: of the last minutes; each attempt is a call; None without any.
            Refused calls are none of them.
        refusals, retries: since the process began.
        under_way, waiting: calls that run, and that wait for a limit or to be tried again.
        paused_seconds: for how long the service still wants to be left alone; 0.0 if it has not said so.

    """

    user_id: int
    status: Status
    findings: tuple[str, ...]
    state: str
    calls: int
    failures: int
    rate_limited: int
    mean_ms: float | None
    refusals: int
    retries: int
    under_way: int
    waiting: int
    paused_seconds: float


@dataclass(slots=True)
class _Minute:
    number: int
    calls: int = 0
    failures: int = 0
    rate_limited: int = 0
    duration_ns: int = 0
    failure_run: int = 0
    first_ns: int = 0
    weighted_ns: float = 0.0


@dataclass(slots=True)
class Watch:
    """What became of a bot's calls in the last minutes; times are of the monotonic clock."""

    thresholds: Thresholds = DEFAULT_THRESHOLDS
    refusals: int = 0
    retries: int = 0
    _minutes: deque[_Minute] = field(default_factory=deque)

    def note(self, started_ns: int, ended_ns: int, *, failed: bool, is_rate_limited: bool = False) -> None:
        """Take down one call."""
        duration_ns = ended_ns - started_ns
        minute = self._minute(ended_ns // _MINUTE_NS)
        if not minute.calls:
            minute.first_ns = duration_ns
        minute.calls += 1
        minute.failures += failed
        minute.rate_limited += is_rate_limited
        minute.duration_ns += duration_ns
        minute.failure_run = minute.failure_run + 1 if failed else 0
        minute.weighted_ns = (1 - WEIGHT) * minute.weighted_ns + WEIGHT * duration_ns

    def tell(  # noqa: PLR0913 - what only the bot knows
        self,
        user_id: int,
        state: BreakerState,
        now_ns: int,
        *,
        under_way: int,
        waiting: int,
        paused_seconds: float,
    ) -> BotHealth:
        """Judge the last minutes."""
        minutes = [each for each in self._minutes if each.number > self._oldest(now_ns // _MINUTE_NS)]
        calls, failures = sum(each.calls for each in minutes), sum(each.failures for each in minutes)
        mean_ms = sum(each.duration_ns for each in minutes) / calls / _MILLISECOND_NS if calls else None
        judgement = judge(
            error_rate=failures / calls if calls else None,
            failure_run=_failure_run(minutes),
            mean_ms=mean_ms,
            average_ms=_average_ms(minutes),
            state=state.state,
            is_suspended=state.suspension is not None,
            thresholds=self.thresholds,
        )
        return BotHealth(
            user_id=user_id,
            status=judgement.status,
            findings=judgement.findings,
            state=state.state.value,
            calls=calls,
            failures=failures,
            rate_limited=sum(each.rate_limited for each in minutes),
            mean_ms=mean_ms,
            refusals=self.refusals,
            retries=self.retries,
            under_way=under_way,
            waiting=waiting,
            paused_seconds=paused_seconds,
        )

    def _minute(self, number: int) -> _Minute:
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(_Minute(number))
            while self._minutes[0].number <= self._oldest(number):
                self._minutes.popleft()
        return self._minutes[-1]

    def _oldest(self, number: int) -> int:
        """Give the number of the last minute before the window."""
        return number - self.thresholds.window_minutes


def _failure_run(minutes: list[_Minute]) -> int:
    """Give the failures after the last success, as far as they are in these minutes."""
    run = 0
    for each in minutes:
        run = each.failure_run + (run if each.failures == each.calls else 0)
    return run


def _average_ms(minutes: list[_Minute]) -> float | None:
    """Give the weighted average that begins with the first call of these minutes, as `Tally.average_ms` does."""
    if not minutes:
        return None
    average_ns: float = minutes[0].first_ns
    for each in minutes:
        average_ns = (1 - WEIGHT) ** each.calls * average_ns + each.weighted_ns
    return average_ns / _MILLISECOND_NS
