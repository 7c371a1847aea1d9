"""Who misbehaves when: a script by time and bot number, the same in every run.

Bots are dealt out to the scripts by their number. The phases are made for the demo's policy (5 failures in a row, a wait
of 10 s, 2 successes), so that within a minute one sees breakers open, fail their probe and open again, and close; beside
bots that nothing happens to, and bots that fail now and then without ever failing five times in a row.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum


class Behaviour(StrEnum):
    """What the provider does to a bot's requests."""

    HEALTHY = "healthy"
    SLOW = "slow"
    SERVER_ERROR = "server error"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Script:
    """Phases as (second in which it begins, behaviour), over and over again.

    Raises:
        ValueError: the first phase does not begin at 0, or they are not in order within the period.

    """

    period_seconds: float
    phases: tuple[tuple[float, Behaviour], ...]

    def __post_init__(self) -> None:
        marks = [begins for begins, _ in self.phases] + [self.period_seconds]
        if marks[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(marks)):
            raise ValueError(f"phases begin at 0 and follow each other within the period, unlike {marks}")

    def behaviour_at(self, seconds: float) -> Behaviour:
        """Give the phase at a time; before 0 it is that of a script which has been running for ever."""
        moment = seconds % self.period_seconds
        return [behaviour for begins, behaviour in self.phases if begins <= moment][-1]


CYCLE_SECONDS = 60.0
STAGGER_SECONDS = 0.4

STEADY = Script(CYCLE_SECONDS, ((0, Behaviour.HEALTHY),))
# Two requests at most fall into the half second, so this never opens a breaker.
HICCUPS = Script(3.0, ((0, Behaviour.HEALTHY), (2.5, Behaviour.SERVER_ERROR)))
# The longest phases outlast the wait, so that the first probe fails too.
SERVER_ERRORS = Script(
    CYCLE_SECONDS,
    (
        (0, Behaviour.SERVER_ERROR),
        (16, Behaviour.HEALTHY),
        (40, Behaviour.SERVER_ERROR),
        (45, Behaviour.HEALTHY),
    ),
)
SLOW_ANSWERS = Script(CYCLE_SECONDS, ((0, Behaviour.HEALTHY), (5, Behaviour.SLOW), (24, Behaviour.HEALTHY)))
DROPPED_CONNECTIONS = Script(
    CYCLE_SECONDS, ((0, Behaviour.HEALTHY), (8, Behaviour.DROPPED), (14, Behaviour.HEALTHY))
)
REFUSED_CONNECTIONS = Script(
    CYCLE_SECONDS, ((0, Behaviour.HEALTHY), (12, Behaviour.REFUSED), (28, Behaviour.HEALTHY))
)
RELAPSE = Script(
    CYCLE_SECONDS,
    (
        (0, Behaviour.HEALTHY),
        (18, Behaviour.DROPPED),
        (24, Behaviour.HEALTHY),
        (36, Behaviour.SLOW),
        (44, Behaviour.HEALTHY),
    ),
)

SCRIPTS = (
    STEADY,
    SERVER_ERRORS,
    SLOW_ANSWERS,
    DROPPED_CONNECTIONS,
    REFUSED_CONNECTIONS,
    STEADY,
    RELAPSE,
    HICCUPS,
)


def behaviour_at(bot: int, seconds: float) -> Behaviour:
    """Tell how the provider treats a bot, numbered from 0, so many seconds after the start.

    Bots of the same script follow each other a little apart.
    """
    turn, script = divmod(bot, len(SCRIPTS))
    return SCRIPTS[script].behaviour_at(seconds - turn % len(SCRIPTS) * STAGGER_SECONDS)


def pause_seconds(bot: int, request: int) -> float:
    """Give the pause before a bot's next request: 0.2 to 0.5 s, uneven, so that the bots don't march in step."""
    return 0.2 + (bot * 7 + request * 5) % 13 / 12 * 0.3
