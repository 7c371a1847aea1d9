"""A call that a breaker has let through, until its end is told: what adapters and guards are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from breaker_store.core.failures import FailureTable
from breaker_store.settings import Durability

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker
    from breaker_store.runtime.surroundings import Block

Result = TypeVar("Result")


class ProtectedCall:
    """One call under way; see `CircuitBreaker.begin`.

    Attributes:
        operation: what is called, as it is recorded; may be changed until the end.
        attempt: from 2 on for what is tried again; None for a first attempt.
        failures: what its errors mean; None for the registry's table.
        is_left_open: whether it goes on when the function has returned.
        durability: what has become of its event when `end` returns.

    """

    __slots__ = (
        "_breaker",
        "_has_ended",
        "_when_ended",
        "attempt",
        "block",
        "durability",
        "failures",
        "is_left_open",
        "operation",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - all that is known of a call
        self,
        breaker: CircuitBreaker,
        block: Block,
        operation: str | None,
        attempt: int | None,
        failures: FailureTable | None,
        durability: Durability,
    ) -> None:
        self._breaker = breaker
        self._has_ended = False
        self._when_ended: Callable[[BaseException | None], object] | None = None
        self.block = block
        self.operation = operation
        self.attempt = attempt
        self.failures = failures
        self.is_left_open = False
        self.durability = durability

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    def leave_open(self) -> None:
        """Let the call go on when the function has returned: whoever does so ends it. A body that streams is such."""
        self.is_left_open = True

    def when_ended(self, callback: Callable[[BaseException | None], object]) -> None:
        """Have `callback(error)`, of which there is one, called when the end has been taken down."""
        self._when_ended = callback

    async def end(self, error: BaseException | None = None, *, result: object = None) -> None:
        """Tell how the call ended: with this error, or well. What is told after that is passed over.

        Cancellation and GeneratorExit tell nothing of the service: nothing is recorded, and a probe's slot is free.

        Raises:
            NotCommittedError: the store's calls are to be committed, and this one, which went well, may not be.

        """
        if self.end_now(error) and self.durability is not Durability.BEHIND:
            await self._breaker.secure_call(self.durability, error, result)

    def end_now(self, error: BaseException | None = None) -> bool:
        """Tell it where nothing can be awaited, so that a call is journaled, and not waited for until it is committed.

        Returns whether it was not told before.
        """
        if self._has_ended:
            return False
        self._has_ended = True
        try:
            self._breaker.end_call(self, error)
        finally:
            # It may know this call: kept, the two would be freed only by the garbage collector.
            when_ended, self._when_ended = self._when_ended, None
            if when_ended is not None:
                when_ended(error)
        return True

    def abandon(self) -> None:
        """End it as if it had not been made: nothing is recorded, and a probe's slot is free."""
        self.end_now(GeneratorExit())


class Guard(Protocol):
    """Who protects calls: a breaker alone, or a bot's instance with its limits and retries. Adapters take either."""

    @property
    def failures(self) -> FailureTable | None:
        """What its user chose errors to mean; None if they chose nothing."""

    async def protect(
        self,
        func: Callable[[ProtectedCall], Awaitable[Result]],
        *,
        operation: str | None = None,
        failures: FailureTable | None = None,
        chat_id: int | str | None = None,
        repeatable: bool = True,
    ) -> Result:
        """Call `func(call)` if it may be called, and record what became of it.

        Args:
            func: what is protected; it may end the call itself, or leave it open for whoever reads the answer's body.
            operation: what is called, as it is recorded.
            failures: what errors mean; None for the guard's own table.
            chat_id: to whom a message goes, for limits by chat; None for no chat.
            repeatable: whether it may be called again: False where what is sent can be sent only once.

        Raises:
            CircuitBreakerOpenError: it may not be called.

        """
