"""What there is to see of a running demo, as values: the screen and the plain lines are drawn from the same ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from breaker_store.core.events import CircuitState, Failure, Transition
from breaker_store.core.policy import MICROSECONDS
from breaker_store.core.state import BreakerState
from breaker_store.demo.fleet import Tally, fleet_user_ids
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.runtime.tally import RecorderStats

TRANSITIONS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Ailing:
    """A breaker that is not closed. `remaining_seconds` is 0.0 when the next call may try."""

    user_id: int
    state: BreakerState
    remaining_seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A transition that was heard of, of this process or of another."""

    user_id: int
    transition: Transition


@dataclass(frozen=True, slots=True)
class Observation:
    """All figures at one moment. `ailing` and `latest` have the newest first.

    Attributes:
        fleet: the states of the bots' breakers, by bot number.
        breakers, ailing: of all breakers, also those of users who have no bot here.
        example_user_id: a user whose history is worth looking at; None while nothing has happened to anybody.

    """

    elapsed_seconds: float
    fleet: tuple[CircuitState, ...]
    breakers: int
    tally: Tally
    recorder: RecorderStats
    ailing: tuple[Ailing, ...]
    latest: tuple[Heard, ...]
    example_user_id: int | None

    def count(self, state: CircuitState) -> int:
        others = sum(each.state.state is state for each in self.ailing)
        return self.breakers - len(self.ailing) if state is CircuitState.CLOSED else others

    @property
    def last_failure(self) -> Failure | None:
        """The newest failure that opened a breaker."""
        return next((heard.transition.causes[-1] for heard in self.latest if heard.transition.causes), None)


class Observer:
    """Hears of the transitions of a registry and passes them on, and looks at the rest when asked."""

    def __init__(
        self,
        registry: CircuitBreakerRegistry,
        bots: int,
        tally: Tally,
        stats: Callable[[], RecorderStats],
        tell: Callable[[Heard], None],
    ) -> None:
        self._registry = registry
        self._fleet = [registry.get_breaker(user_id) for user_id in fleet_user_ids(bots)]
        self._tally = tally
        self._stats = stats
        self._tell = tell
        self._started = time.monotonic()
        self._latest: deque[Heard] = deque(maxlen=TRANSITIONS_KEPT)
        self._example_user_id: int | None = None
        registry.subscribe(self.hear)

    def hear(self, user_id: int | None, transition: Transition) -> None:
        if user_id is not None:
            heard = Heard(user_id, transition)
            self._latest.appendleft(heard)
            # The first one stays: a command that changes while one copies it is no help.
            self._example_user_id = self._example_user_id or user_id
            self._tell(heard)

    def look(self) -> Observation:
        return Observation(
            elapsed_seconds=time.monotonic() - self._started,
            fleet=tuple(breaker.state.state for breaker in self._fleet),
            breakers=len(self._registry),
            tally=self._tally,
            recorder=self._stats(),
            ailing=find_ailing(self._registry),
            latest=tuple(self._latest),
            example_user_id=self._example_user_id,
        )


def find_ailing(registry: CircuitBreakerRegistry) -> tuple[Ailing, ...]:
    """Give the breakers that are not closed, those that changed last first."""
    now = registry.surroundings.clock.now_us()
    ailing = [
        Ailing(breaker.user_id, breaker.state, breaker.state.remaining_us(now) / MICROSECONDS)
        for breaker in registry
        if breaker.user_id is not None and breaker.state.state is not CircuitState.CLOSED
    ]
    return tuple(sorted(ailing, key=lambda each: each.state.since or 0, reverse=True))
