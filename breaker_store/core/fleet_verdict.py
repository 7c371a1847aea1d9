"""This bot, or everybody: what the trips of other breakers around one trip say about it.

The rule is in `RULE` and its limits in `LIMITS`, word for word as they are shown. It counts trips alone, from closed to
open: breakers of bots that were broken long ago open again after each failed probe, and would make every new trouble
of the same kind look like everybody's. A fleet in which some trip at all times for the same reason, as revoked tokens
are ordinary in a large one, is why the hour before is looked at: many are a sign only if they are more than usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from breaker_store.core.events import Failure
from breaker_store.core.wording import counted, shortened, span

MINUTES_AROUND: Final = 5
WINDOW_US: Final = MINUTES_AROUND * 60 * 1_000_000
"""How far before and after a trip others are compared with it."""

HOUR_BEFORE_US: Final = 3_600 * 1_000_000
"""How much of the time before that tells what is usual."""

SHORTEST_US: Final = 60 * 1_000_000

MANY: Final = 3
TIMES_USUAL: Final = 3
MANY_BEFORE: Final = 10
ERROR_WIDTH: Final = 80

RULE: Final = (
    f"Compared are the other breakers that opened from closed within {MINUTES_AROUND} minutes before or after the "
    "trip. The error of a trip is the type of its last failure. "
    f"this_bot: no other breaker has the same error, and fewer than {MANY_BEFORE} had it in the hour before that. "
    f"everybody: at least {MANY} others have it (two, if there are only two others), and at least {TIMES_USUAL} times "
    "as many as usual, which is what ten minutes of that hour had on average. "
    "several_troubles: neither, but that many share the type of an earlier one of its failures. "
    "unclear: anything else. If there are too many to look at all of them, the nearest are; and if those are of less than "
    "a minute, what is not found among them is unclear too."
)

LIMITS: Final = (
    "The same type of error does not prove the same cause, and one cause can show as several types. "
    "A bot that makes no calls does not trip, so others that are quiet prove nothing; how many were calling is not known. "
    "How many breakers there are is told as of now, not of then."
)


class FleetVerdict(StrEnum):
    """Whose trouble a trip looks like; see `RULE`."""

    THIS_BOT = "this_bot"
    EVERYBODY = "everybody"
    SEVERAL_TROUBLES = "several_troubles"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Around:
    """The other breakers around a trip.

    Attributes:
        breakers: how many there are, this one among them.
        since, until: the time that was looked at: less than the whole window if too much happened in it.
        is_over: whether the window has passed, so that nobody else can still trip in it.
        opened: how many others tripped.
        by_error: how many others tripped with which error; those of this trip's failures
            are among them wherever anybody shares them.
        same_before: how many others tripped with this trip's error before the window, within `before_us`.

    """

    breakers: int
    since: int
    until: int
    opened: int
    by_error: Mapping[str | None, int]
    same_before: int
    before_us: int
    is_cut: bool = False
    is_over: bool = True

    @property
    def others(self) -> int:
        return max(0, self.breakers - 1)

    @property
    def usual(self) -> float:
        """How many others trip with this error in a time as long as the window."""
        return self.same_before * (2 * WINDOW_US) / self.before_us if self.before_us > 0 else 0.0

    @property
    def is_short(self) -> bool:
        """Whether so little of the window was looked at that what is not in it proves nothing."""
        return self.is_cut and self.until - self.since < SHORTEST_US

    def shared(self, error_type: str | None) -> int:
        return 0 if error_type is None else self.by_error.get(error_type, 0)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict; `finding` is what it rests on, as a part of a sentence, and `advice` goes on after a colon."""

    verdict: FleetVerdict
    finding: str
    advice: str
    same_error: int


CHECK_THE_BOT: Final = "check this bot's token and settings"
MEND_THE_BOT: Final = (
    "waiting mends nothing: give this bot a new token if its own was revoked, else check its settings"
)
_WAIT: Final = "wait for the provider"
_CHECK_BOTH: Final = f"{CHECK_THE_BOT} first, then whether the provider has trouble"


def judge(failures: tuple[Failure, ...], around: Around) -> Judgement:
    """Say whose trouble a trip looks like, from its failures, oldest first, and from the others around it."""
    error_type = failures[-1].error_type if failures else None
    same = around.shared(error_type)
    if around.others == 0:
        verdict, finding, advice = _alone()
    elif error_type is None:
        verdict, finding, advice = _without_type(around)
    elif _are_many(same, around) and same >= TIMES_USUAL * around.usual:
        verdict, finding, advice = _everybody(same, around)
    elif earlier := _shared_earlier(failures, around):
        verdict, finding, advice = _several(earlier, around)
    elif same or around.same_before >= MANY_BEFORE or around.is_short:
        verdict, finding, advice = _unclear(same, around)
    else:
        verdict, finding, advice = _this_bot(around)
    return Judgement(verdict, finding, advice, same)


def _are_many(number: int, around: Around) -> bool:
    return number >= min(MANY, max(2, around.others))


def _shared_earlier(failures: tuple[Failure, ...], around: Around) -> str | None:
    """Name the error, not the last one, that most others have, if they are many."""
    earlier = {failure.error_type for failure in failures} - {failures[-1].error_type, None}
    ranked = sorted(filter(None, earlier), key=lambda error: (-around.shared(error), error))
    return ranked[0] if ranked and _are_many(around.shared(ranked[0]), around) else None


def _alone() -> tuple[FleetVerdict, str, str]:
    finding = "there is no other breaker to compare it with, so whose trouble it is can't be told"
    return FleetVerdict.UNCLEAR, finding, _CHECK_BOTH


def _without_type(around: Around) -> tuple[FleetVerdict, str, str]:
    if around.opened == 0:
        return _this_bot(around)
    finding = f"{_within(around.opened, around)}, but without an error type of its own it can't be compared with them"
    return FleetVerdict.UNCLEAR, finding, _CHECK_BOTH


def _everybody(same: int, around: Around) -> tuple[FleetVerdict, str, str]:
    rest = max(0, around.opened - same)
    others = f" ({rest:,} more with other errors)" if rest else ""
    finding = (
        f"{_within(same, around)} with the same error{others}, so it looks like the provider, not this bot"
    )
    return FleetVerdict.EVERYBODY, finding, _WAIT


def _several(earlier: str, around: Around) -> tuple[FleetVerdict, str, str]:
    finding = (
        f"{_within(around.shared(earlier), around)} with {shortened(earlier, ERROR_WIDTH)}, which only its earlier "
        "failures have, so several troubles seem to have met"
    )
    return FleetVerdict.SEVERAL_TROUBLES, finding, f"{_WAIT}, and {CHECK_THE_BOT}"


def _unclear(same: int, around: Around) -> tuple[FleetVerdict, str, str]:
    before = f"{around.same_before:,} did in the hour before that"
    if same == 0 and around.is_short:
        finding = f"{_within(0, around)} with this error, too short a time to tell whose trouble it is"
    elif same == 0:
        finding = f"{_within(0, around)} with this error, but {before}, so whose trouble it is can't be told"
    elif _are_many(same, around):
        finding = (
            f"{_within(same, around)} with the same error, but {before}, so that is not much more than usual"
        )
    else:
        finding = f"{_within(same, around)} with the same error, too few to tell whose trouble it is"
    return FleetVerdict.UNCLEAR, finding, _CHECK_BOTH


def _this_bot(around: Around) -> tuple[FleetVerdict, str, str]:
    finding = _within(0, around)
    if around.opened:
        error = max(around.by_error, key=lambda name: (around.by_error[name], name or ""), default=None)
        most = "without an error type" if error is None else shortened(error, ERROR_WIDTH)
        number = f"{'at least ' if around.is_cut else ''}{around.opened:,}"
        finding += (
            f" with this error ({number} did with others, mostly {most}, which looks like another trouble)"
        )
    return FleetVerdict.THIS_BOT, f"{finding}, so it looks like this bot, not the provider", CHECK_THE_BOT


def _within(number: int, around: Around) -> str:
    """Say how many of the others tripped in the window."""
    so_far = "" if around.is_over else "so far "
    when = f"within {counted(MINUTES_AROUND, 'minute')} of it"
    if around.is_cut:
        when = f"in the {span(around.until - around.since)} around it that were looked at"
    return f"{so_far}{_who(number, around)} {when}"


def _who(number: int, around: Around) -> str:
    if around.others == 1:
        return "the only other breaker" + (" did not open" if number == 0 else " opened")
    if number == around.others and not around.is_cut:
        return f"all {number:,} other breakers opened"
    how_many = "none" if number == 0 else f"{'at least ' if around.is_cut else ''}{number:,}"
    return f"{how_many} of the other {around.others:,} breakers opened"
