from __future__ import annotations

from collections.abc import Iterator

import pytest

from breaker_store.core.commands import Admit, Report
from breaker_store.core.decide import decide, permit_of
from breaker_store.core.events import EventId, Kind, Transition
from breaker_store.core.state import BreakerState, evolve
from breaker_store.demo.fleet import REQUEST_TIMEOUT_SECONDS
from breaker_store.demo.run import POLICY
from breaker_store.demo.schedule import HICCUPS, SCRIPTS, Behaviour, Script, behaviour_at, pause_seconds

FLEET = range(40)


def test_a_phase_lasts_until_the_next_one_begins_and_the_script_starts_over() -> None:
    script = Script(10.0, ((0, Behaviour.HEALTHY), (4, Behaviour.SLOW), (6, Behaviour.DROPPED)))
    moments = (0, 3.99, 4, 5.99, 6, 9.99, 10, 14)
    assert [script.behaviour_at(moment).value for moment in moments] == [
        *("healthy", "healthy", "slow", "slow", "dropped", "dropped", "healthy", "slow")
    ]


def test_a_time_before_the_start_belongs_to_the_period_before() -> None:
    script = Script(10.0, ((0, Behaviour.HEALTHY), (4, Behaviour.SLOW)))
    assert script.behaviour_at(-1) is Behaviour.SLOW


@pytest.mark.parametrize("begins", [(1,), (0, 4, 4), (0, 5, 3), (0, 10)])
def test_phases_that_are_not_in_order_within_the_period_are_refused(begins: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="phases begin at 0"):
        Script(10.0, tuple((second, Behaviour.HEALTHY) for second in begins))


def test_every_behaviour_comes_within_a_minute() -> None:
    seen = {behaviour_at(bot, second) for bot in FLEET for second in range(60)}
    assert seen == set(Behaviour)


def test_bots_of_one_script_follow_each_other_a_little_apart() -> None:
    first, second = 1, 1 + len(SCRIPTS)
    assert behaviour_at(first, 0.2) is Behaviour.SERVER_ERROR
    assert behaviour_at(second, 0.2) is Behaviour.HEALTHY
    assert behaviour_at(second, 0.5) is Behaviour.SERVER_ERROR


def test_a_bot_pauses_unevenly_between_a_fifth_and_a_half_of_a_second() -> None:
    pauses = [pause_seconds(bot, request) for bot in FLEET for request in range(100)]
    assert (min(pauses), max(pauses)) == (0.2, 0.5)
    assert len({pause_seconds(3, request) for request in range(13)}) == 13


def test_within_a_minute_breakers_open_fail_their_probe_and_close() -> None:
    changes = [transition.kind for bot in FLEET for transition in play(bot, 60.0)]
    assert changes.count(Kind.OPENED) > changes.count(Kind.CLOSED) > 30
    reopened = [each for bot in FLEET for each in play(bot, 60.0) if each.reason == "a probe failed"]
    assert len(reopened) >= 10


def test_hiccups_never_open_a_breaker() -> None:
    assert not list(play(SCRIPTS.index(HICCUPS), 600.0))
    assert {HICCUPS.behaviour_at(second / 10) for second in range(60)} > {Behaviour.HEALTHY}


def play(bot: int, seconds: float) -> Iterator[Transition]:
    """Give the transitions that a bot's breaker makes by the script, if an answer takes no time but a slow one."""
    state, now = BreakerState(POLICY), 0.0
    for request in range(100_000):
        now += pause_seconds(bot, request)
        if now > seconds:
            return
        at, event_id = round(now * 1_000_000), EventId(1, request * 10 + 1)
        events = decide(state, Admit(at, event_id, request + 1))
        for event in events:
            state = evolve(state, event)
        permit = permit_of(state, events)
        if permit is not None:
            behaviour = behaviour_at(bot, now)
            now += REQUEST_TIMEOUT_SECONDS if behaviour is Behaviour.SLOW else 0
            kind = Kind.SUCCESS if behaviour is Behaviour.HEALTHY else Kind.FAILURE
            report = Report(round(now * 1_000_000), event_id, request + 1, kind, permit)
            answered = decide(state, report)
            for event in answered:
                state = evolve(state, event)
            events += answered
        yield from (event for event in events if isinstance(event, Transition))
