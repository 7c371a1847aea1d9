"""When a call that failed is tried again; tenacity does the trying.

Where retry and breaker meet: the breaker is inside. Each attempt asks the breaker, and is an event of its own with its
number. So five attempts of one call that all fail open the breaker as five calls do, no attempt is made once it is open,
and the log tells how many requests the service really got. The other way round, a breaker around all attempts would see
one failure where there were five requests.

What ends the attempts: a success; an error that another try would not mend; the greatest number of attempts; the total
time; a fleet that has spent its budget; the breaker, as soon as it is open. The caller then gets the error of the last
attempt that was made, as it is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import tenacity

from breaker_store.core.failures import BadAnswer, Category, ErrorReading


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after what pauses a call is tried again.

    Attributes:
        attempts: the first among them, from 1, for errors of the network or the server, and for "slow down".
        attempts_at_unknown: the same for errors that no table knows; from 1.
        first_pause_seconds: the first pause is drawn between 0 and this, each following one between 0 and twice as
            much ("full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
        longest_pause_seconds: at most; an upper bound of those that are drawn, not of what the service asks for.
        total_seconds: no attempt but the first begins later than this after the call was asked for. How long an attempt
            itself may take is the client's time-out. A service that asks for a longer wait is not asked again.

    Raises:
        ValueError: one of them is out of its bounds.

    """

    attempts: int = 4
    attempts_at_unknown: int = 2
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0
    total_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.attempts_at_unknown < 1:
            raise ValueError("there is one attempt at least")
        seconds = (self.first_pause_seconds, self.longest_pause_seconds, self.total_seconds)
        if not all(0 <= each < float("inf") for each in seconds):
            raise ValueError(f"pauses and the total are from 0 seconds on, and finite, not {seconds}")

    def attempts_at(self, category: Category) -> int:
        """Tell how many attempts a call has that failed so; 1 where no other one would help."""
        match category:
            case Category.TRANSIENT | Category.RATE_LIMITED:
                return self.attempts
            case Category.UNKNOWN:
                return min(self.attempts, self.attempts_at_unknown)
            case _:
                return 1

    def pause_seconds(self, attempt: int, reading: ErrorReading) -> float:
        """Draw the pause after so many attempts: never less than the service asks for."""
        asked = reading.retry_after_seconds
        if asked is not None:
            # Those who were told the same shall not come back in the same moment.
            return asked + random.uniform(0, min(1.0, asked / 10))  # noqa: S311 - no secret
        # An attempt beyond the 60th would overflow a float long after the pause has reached its bound.
        bound = min(self.longest_pause_seconds, self.first_pause_seconds * 2 ** min(attempt - 1, 60))
        return random.uniform(0, bound)  # noqa: S311


NO_RETRIES: Final = RetryPolicy(attempts=1)

# One for all: it refers to itself.
_ANY_ERROR: Final = tenacity.retry_if_exception_type(Exception)


def retrying(
    policy: RetryPolicy,
    read: Callable[[BaseException], ErrorReading],
    may_repeat: Callable[[float], bool],
    pause: Callable[[float], Awaitable[None]],
) -> tenacity.AsyncRetrying:
    """Give tenacity our rules.

    read: what an error means.
    may_repeat: asked last, with the pause in seconds: whether there is time and budget for another attempt.
    pause: waits, as `asyncio.sleep` does.
    """

    def reading_of(state: tenacity.RetryCallState) -> ErrorReading:
        error = state.outcome.exception() if state.outcome is not None else None
        assert error is not None  # noqa: S101 - it is only asked after a failed attempt
        return read(error)

    def is_over(state: tenacity.RetryCallState) -> bool:
        if state.attempt_number >= policy.attempts_at(reading_of(state).category):
            return True
        return not may_repeat(state.upcoming_sleep)

    async def put_aside(state: tenacity.RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if isinstance(error, BadAnswer) and error.put_aside is not None:
            await error.put_aside(error)

    return tenacity.AsyncRetrying(
        sleep=pause,
        before_sleep=put_aside,
        retry=_ANY_ERROR,
        wait=lambda state: policy.pause_seconds(state.attempt_number, reading_of(state)),
        stop=is_over,
        # Not an error of tenacity's, nor the attempt's through tenacity: whoever asked has that, and raises it.
        retry_error_callback=lambda _state: None,
    )


def take_apart(attempts: tenacity.AsyncRetrying) -> None:
    """Part what refers to one another when the attempts are over: else only the garbage collector would free it.

    A fleet in trouble makes enough of that for everybody to wait while it is collected.
    """
    attempts.iter_state.reset()
    state: tenacity.RetryCallState = attempts._retry_state  # noqa: SLF001 - and it has the attempts
    state.outcome = None
    del attempts._retry_state  # noqa: SLF001
