"""What somebody does to a live breaker by hand, in its own process; from another one it is `breaker_store.control`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from breaker_store.core.cleaning import clean_text
from breaker_store.core.commands import Action, ChangePolicy, ForceOpen, Release, Reset, Resume, Suspend
from breaker_store.core.decide import decide, end_after
from breaker_store.core.events import Event, EventId
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from breaker_store.errors import NotForcedOpenError, NotSuspendedError, SuspendedError
from breaker_store.settings import Durability

if TYPE_CHECKING:
    from breaker_store.runtime.surroundings import Surroundings


class HandledBreaker:
    """The part of a breaker that people act on; `CircuitBreaker` is the whole."""

    __slots__ = ()

    user_id: int | None
    _state: BreakerState
    _surroundings: Surroundings

    if TYPE_CHECKING:

        def _take_on(self, events: tuple[Event, ...]) -> None: ...

    def reset(self, *, actor: str | None = None, reason: str | None = None) -> None:
        """Close the breaker and forget its failures, whatever its state; who and why go into the log.

        Raises:
            SuspendedError: the bot is suspended; nothing came of it.

        """
        self._refuse_suspended()
        self._act_in_place(lambda: Reset(*self._new_count(), _clean(actor), _clean(reason)))

    def force_open(
        self, *, for_seconds: float | None = None, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Refuse all calls, whatever the state; who and why go into the log.

        for_seconds: how long, more than 0 and at most ten years: the next call after that may try. None refuses until
            somebody releases or resets the breaker. One that is forced open already gets the new end.

        Raises:
            ValueError: the time is out of its bounds.
            SuspendedError: the bot is suspended; nothing came of it.

        """
        self._refuse_suspended()

        def force() -> ForceOpen:
            now, event_id, era = self._new_count()
            until = None if for_seconds is None else end_after(now, for_seconds)
            return ForceOpen(now, event_id, era, until, _clean(actor), _clean(reason))

        self._act_in_place(force)

    def release(self, *, actor: str | None = None, reason: str | None = None) -> None:
        """Close a breaker that is forced open, with no failure counted; who and why go into the log.

        Raises:
            NotForcedOpenError: it is not; nothing came of it.
            SuspendedError: the bot is suspended; nothing came of it.

        """
        self._refuse_suspended()
        if not self._state.forced:
            raise NotForcedOpenError(self.user_id)
        self._act_in_place(lambda: Release(*self._new_count(), _clean(actor), _clean(reason)))

    def suspend(self, *, actor: str | None = None, reason: str | None = None) -> None:
        """Refuse all calls with this reason until somebody resumes the bot; who and why go into the log.

        Nothing else ends it: not a reset, not a release. One that is suspended already gets the new reason.
        """
        self._act_in_place(lambda: Suspend(*self._new_count(), _clean(actor), _clean(reason)))

    def resume(self, *, actor: str | None = None, reason: str | None = None) -> None:
        """Close the breaker of a bot that is suspended, with no failure counted; who and why go into the log.

        Raises:
            NotSuspendedError: it is not; nothing came of it.

        """
        if self._state.suspension is None:
            raise NotSuspendedError(self.user_id)
        self._act_in_place(lambda: Resume(*self._new_count(), _clean(actor), _clean(reason)))

    def _refuse_suspended(self) -> None:
        if self._state.suspension is not None:
            raise SuspendedError(self.user_id)

    def set_policy(self, policy: Policy, *, actor: str | None = None, reason: str | None = None) -> None:
        """Give this user rules of their own; nothing happens if they have these already."""
        if self._state.policy_is_own and self._state.policy == policy:
            return
        self._act_in_place(
            lambda: ChangePolicy(*self._new_count()[:2], policy, _clean(actor), _clean(reason))
        )

    def go_back_to_default(self, policy: Policy, *, actor: str | None, reason: str | None) -> None:
        """Give up this user's own rules for the default, if there are any; for the registry, which has it."""
        if self._state.policy_is_own:
            self._act_in_place(
                lambda: ChangePolicy(
                    *self._new_count()[:2], policy, _clean(actor), _clean(reason), is_own=False
                )
            )

    def _new_count(self) -> tuple[int, EventId, int]:
        """Give what a command by hand needs beside who and why: the time, its event's id, and an era."""
        journal = self._surroundings.journal
        return self._surroundings.clock.now_us(), journal.next_id(), journal.draw_era()

    def _act_in_place(self, say_what: Callable[[], Action]) -> None:
        """Do what is said, where breakers decide: the time and the id are those of that moment."""
        self._surroundings.decisions.make(lambda: self._act(say_what()))

    def _act(self, action: Action) -> None:
        journal = self._surroundings.journal
        with self._surroundings.decisions.lock:
            self._take_on(decide(self._state, action))
        if journal.durability is not Durability.BEHIND:
            journal.write_through()


def _clean(text: str | None) -> str | None:
    return None if text is None else clean_text(text)
