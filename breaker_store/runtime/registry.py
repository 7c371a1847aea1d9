"""All breakers of a process, one a user."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from breaker_store.core.events import BIGINTS, CircuitState
from breaker_store.core.failures import EVERY_ERROR, FailureTable
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.listeners import Listener
from breaker_store.runtime.surroundings import Surroundings
from breaker_store.runtime.told_state import StateDict

logger = logging.getLogger(__name__)


class CircuitBreakerRegistry:
    """The breakers of a process by user id, made when first asked for, by whichever thread.

    Alone it lives in memory; a `BreakerStore` opened on it makes it durable. The numbers, or `policy` in their place,
    hold for every user who has no policy of their own. `failures` says what errors mean, such as
    `breaker_store.failures.KNOWN_CLIENTS`; with none, every error is a failure, but for those that the policy names.
    """

    def __init__(  # noqa: PLR0913 - existing code relies on the first three
        self,
        failure_threshold: int = 5,
        timeout_seconds: float = 60.0,
        success_threshold: int = 2,
        *,
        policy: Policy | None = None,
        failures: FailureTable = EVERY_ERROR,
        clock: Clock | None = None,
    ) -> None:
        self.policy = policy or Policy(failure_threshold, timeout_seconds, success_threshold)
        self.surroundings = Surroundings(clock or Clock(), failures)
        self._first_state = BreakerState(self.policy)
        self._breakers: dict[int, CircuitBreaker] = {}
        # Closed breakers that nobody has asked for since the store was opened: how to make their state.
        self._asleep: dict[int, Callable[[], BreakerState]] = {}

    def __len__(self) -> int:
        return len(self._breakers) + len(self._asleep)

    def __iter__(self) -> Iterator[CircuitBreaker]:
        for user_id in tuple(self._asleep):
            self.get_breaker(user_id)
        return iter(tuple(self._breakers.values()))

    def get_breaker(self, user_id: int) -> CircuitBreaker:
        """Give a user's breaker; a new one is made closed, and nothing is written before its first event.

        Any thread may ask: all of them get the same one.

        Raises:
            TypeError: the id is no int.
            ValueError: it does not fit in signed 64 bits.

        """
        breaker = self._breakers.get(user_id)
        if breaker is not None and type(user_id) is int:
            return breaker
        with self.surroundings.decisions.lock:
            return self._make(user_id)

    def find_breaker(self, user_id: int) -> CircuitBreaker | None:
        """Give a user's breaker if there is one already."""
        if user_id in self._breakers or user_id in self._asleep:
            return self.get_breaker(user_id)
        return None

    def reset_breaker(self, user_id: int, *, actor: str | None = None, reason: str | None = None) -> bool:
        """Reset a user's breaker; an unknown user gets none, and the answer is False."""
        breaker = self.find_breaker(user_id)
        if breaker is None:
            return False
        breaker.reset(actor=actor, reason=reason)
        return True

    def set_policy(
        self, user_id: int, policy: Policy, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Give a user rules of their own, which are kept with the user's history and survive a restart."""
        self.get_breaker(user_id).set_policy(policy, actor=actor, reason=reason)

    def clear_policy(self, user_id: int, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let the registry's default hold for a user again; nothing happens if it does."""
        self.get_breaker(user_id).go_back_to_default(self.policy, actor=actor, reason=reason)

    def get_open_breakers(self) -> list[int]:
        return self._users_in(CircuitState.OPEN)

    def get_half_open_breakers(self) -> list[int]:
        return self._users_in(CircuitState.HALF_OPEN)

    def get_all_states(self) -> dict[int, StateDict]:
        return {breaker.user_id: breaker.get_state() for breaker in self if breaker.user_id is not None}

    def count_by_state(self) -> dict[CircuitState, int]:
        """Count the breakers by state."""
        counts = Counter(breaker.state.state for breaker in tuple(self._breakers.values()))
        counts[CircuitState.CLOSED] += len(self._asleep)
        return {state: counts[state] for state in CircuitState}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(user_id, transition)`, plain or async, called after each transition; returns how to stop it.

        Transitions that other processes made are told as well. See `Listeners` for what becomes of slow ones.
        """
        return self.surroundings.listeners.subscribe(listener)

    def take_over(
        self,
        states: Mapping[int, BreakerState],
        asleep: Mapping[int, Callable[[], BreakerState]],
    ) -> None:
        """Put what the store knows in place of what memory knew; breakers it doesn't know begin anew.

        `asleep` are closed breakers whose states are made when somebody asks for them: most of a large fleet has a
        past, and few of it are at work in the first second.
        """
        with self.surroundings.decisions.lock:
            self._take_over(states, asleep)

    def _take_over(
        self,
        states: Mapping[int, BreakerState],
        asleep: Mapping[int, Callable[[], BreakerState]],
    ) -> None:
        self.surroundings.unconfirmed.clear()
        self._asleep = dict(asleep)
        for breaker in self._breakers.values():
            breaker.stored = False
            breaker.adopt(self._first_state)
        for user_id in self._asleep.keys() & self._breakers.keys():
            self._wake(self._breakers[user_id])
            del self._asleep[user_id]
        for user_id, state in states.items():
            breaker = self._breakers.get(user_id) or self._new(user_id)
            breaker.adopt(state)
            breaker.stored = True

    @property
    def first_state(self) -> BreakerState:
        """The state of a breaker that nothing has happened to: one object, shared by all of them."""
        return self._first_state

    def _make(self, user_id: int) -> CircuitBreaker:
        if not isinstance(user_id, int) or isinstance(user_id, bool):
            raise TypeError(f"a user id is an int, not {user_id!r}")
        if user_id not in BIGINTS:
            raise ValueError(f"a user id fits in signed 64 bits, unlike {user_id}")
        return self._breakers.get(user_id) or self._new(user_id)

    def _new(self, user_id: int) -> CircuitBreaker:
        breaker = CircuitBreaker.of_registry(user_id, self._first_state, self.surroundings)
        if user_id not in self._asleep:
            self._breakers[user_id] = breaker
            return breaker
        self._wake(breaker)
        # Only now that it is awake, for threads look here without the lock; and before it is forgotten there.
        self._breakers[user_id] = breaker
        del self._asleep[user_id]
        return breaker

    def _wake(self, breaker: CircuitBreaker) -> None:
        breaker.adopt(self._asleep[breaker.user_id or 0]())
        breaker.stored = True

    def _users_in(self, state: CircuitState) -> list[int]:
        breakers = tuple(self._breakers.items())
        return [user_id for user_id, breaker in breakers if breaker.state.state is state]


class _SharedRegistry(CircuitBreakerRegistry):
    """The process's registry: it says once that it is memory only, if it is used while it is."""

    _said = False

    def _make(self, user_id: int) -> CircuitBreaker:
        if not self._said and not self.surroundings.journal.kept:
            self._said = True
            logger.warning(
                "the shared circuit breaker registry is in memory only: a restart forgets it, until a "
                "BreakerStore is opened on it"
            )
        return super()._make(user_id)


_shared: CircuitBreakerRegistry | None = None
_sharing = threading.Lock()


def get_circuit_breaker_registry() -> CircuitBreakerRegistry:
    """Give the registry that the whole process shares.

    To make it durable: `BreakerStore.open(..., registry=get_circuit_breaker_registry())`.
    """
    global _shared  # noqa: PLW0603 - the shared registry is one by definition
    if _shared is None:
        with _sharing:
            if _shared is None:  # an empty one is false
                _shared = _SharedRegistry()
    return _shared
