"""How a breaker stands: its version, by which an action says what it was decided on, and one plain sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from breaker_store.core.events import CircuitState, Suspension, Transition
from breaker_store.core.fleet_verdict import ERROR_WIDTH
from breaker_store.core.policy import ErrorName, Policy
from breaker_store.core.state import BreakerState
from breaker_store.core.wording import counted, moment, quoted, shortened, span

REASON_WIDTH: Final = 120

_GREATEST_VERSION: Final = 2**31 - 1
_ERAS: Final = 2**32
_VERSION: Final = re.compile("(0|[1-9][0-9]{0,9})-([0-9a-f]{8})")


class StateVersion(NamedTuple):
    """Which transition of which history a breaker's state comes from; what it counts in between is no new version.

    Its text is the version and the era, as in `17-9f00aa12`.
    """

    version: int
    era: int

    @classmethod
    def of(cls, state: BreakerState) -> Self:
        return cls(state.version, state.era)

    def __str__(self) -> str:
        return f"{self.version}-{self.era % _ERAS:08x}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` gave.

        Raises:
            ValueError: it is anything else.

        """
        match = _VERSION.fullmatch(text)
        if match is None or int(match[1]) > _GREATEST_VERSION:
            raise ValueError("a version is written as in 17-9f00aa12")
        era = int(match[2], 16)
        return cls(int(match[1]), era if era < _ERAS // 2 else era - _ERAS)


def describe_standing(
    user_id: int, state: BreakerState, remaining_us: int | None, opening: Transition | None
) -> str:
    """Write the sentence: printable, on one line.

    remaining_us: how long an open breaker still refuses; None if it has no end.
    opening: the one in force, where somebody forced it open; None if it is not known who and why.
    """
    subject = f"User {user_id}'s breaker"
    if state.state is CircuitState.CLOSED:
        return f"{subject} is closed{_counting(state)}."
    if state.suspension is not None:
        return f"User {user_id}'s bot is {_suspended(state.suspension)}."
    if state.forced:
        return f"{subject} {_forced(state, remaining_us, opening)}."
    if state.state is CircuitState.HALF_OPEN:
        return f"{subject} {how_it_goes_on(state, remaining_us)}."
    return f"{subject} is open: it {how_it_goes_on(state, remaining_us)}."


def describe_policy(user_id: int, policy: Policy, *, is_own: bool) -> str:
    """Write a user's rules as a sentence: printable, on one line."""
    whose = "a policy of their own" if is_own else "the default policy"
    parts = [f"User {user_id} has {whose}: their breaker {rules(policy)}"]
    if policy.half_open_max_calls != 1:
        parts.append(f"{policy.half_open_max_calls:,} probes may run at once")
    if policy.counted_errors is not None:
        parts.append(f"only {_errors(policy.counted_errors)} counts as a failure")
    if policy.ignored_errors:
        parts.append(f"{_errors(policy.ignored_errors)} does not count")
    return f"{'; '.join(parts)}."


def rules(policy: Policy) -> str:
    """Say what a breaker does by a policy, as the end of a sentence about it."""
    return (
        f"opens after {counted(policy.failure_threshold, 'failure')} in a row, waits {policy.timeout_seconds:g} s, "
        f"and closes after {counted(policy.success_threshold, 'success', 'successes')}"
    )


def _errors(names: Sequence[ErrorName]) -> str:
    return ", ".join(shortened(str(name), ERROR_WIDTH) for name in names) or "nothing"


def _counting(state: BreakerState) -> str:
    if not state.failure_count:
        return ""
    failures = counted(state.failure_count, "failure")
    return f": it has seen {failures} in a row, and opens after {state.policy.failure_threshold:,}"


def _suspended(suspension: Suspension) -> str:
    by = f" by {shortened(suspension.actor, ERROR_WIDTH)}" if suspension.actor else ""
    because = f": {quoted(suspension.reason, REASON_WIDTH)}" if suspension.reason else ""
    return f"suspended{by} since {moment(suspension.at)}, until somebody resumes it{because}"


def _forced(state: BreakerState, remaining_us: int | None, opening: Transition | None) -> str:
    by = f" by {shortened(opening.actor, ERROR_WIDTH)}" if opening and opening.actor else ""
    because = f": {quoted(opening.reason, REASON_WIDTH)}" if opening and opening.reason else ""
    if state.retry_at is None:
        return f"is forced open{by} until somebody releases it{because}"
    until = f"{by} until {moment(state.retry_at)}"
    if remaining_us:
        return f"is forced open{until}{because}"
    return f"was forced open{until}{because}; it {how_it_goes_on(state, remaining_us)}"


def how_it_goes_on(state: BreakerState, remaining_us: int | None) -> str:
    """Say what a breaker that is not closed does with the next calls, as the end of a sentence about it."""
    if state.state is CircuitState.HALF_OPEN:
        done, needed = state.success_count, state.policy.success_threshold
        return f"is half-open, with {done:,} of {counted(needed, 'probe')} succeeded"
    if state.suspension is not None:
        return "refuses all calls until somebody resumes the bot"
    if remaining_us is None:
        return "stays open until somebody closes it"
    if remaining_us > 0:
        return f"refuses calls for another {span(remaining_us)}"
    return "lets the next call try, since its wait is over"
