from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from breaker_store.core.commands import Report
from breaker_store.core.decide import decide
from breaker_store.core.events import CircuitState, EventId, Kind, Permit, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState, evolve
from breaker_store.demo.fleet import Tally
from breaker_store.demo.observing import Ailing, Heard, Observation
from breaker_store.demo.screen import Introduction, draw
from breaker_store.demo.wording import (
    describe_end,
    describe_events,
    describe_known,
    describe_reason,
    describe_standing,
)
from breaker_store.runtime.tally import RecorderStats
from breaker_store.settings import Location

SECOND = 1_000_000
POLICY = Policy(timeout_seconds=10.0)


def trip() -> tuple[BreakerState, Transition]:
    """Let a breaker fail five times, and give what it has become and by which transition."""
    state = BreakerState(POLICY)
    transition: Transition | None = None
    for number in range(1, 6):
        report = Report(
            at=number * SECOND,
            event_id=EventId(1, number),
            era=7,
            kind=Kind.FAILURE,
            permit=Permit(0, 0),
            error_type="aiohttp.ClientResponseError",
            error_message="503, at /bot[hidden]/sendMessage",
        )
        for event in decide(state, report):
            state = evolve(state, event)
            transition = event if isinstance(event, Transition) else None
    assert transition is not None
    return state, transition


OPEN, OPENED = trip()
HALF_OPEN = replace(OPEN, state=CircuitState.HALF_OPEN, success_count=1, retry_at=None)
INTRODUCTION = Introduction("demo", "nothing is known", "http://127.0.0.1:8000")
STATS = RecorderStats(3, 1_234, 0, 0, 0, None, None, None)


def observe(*ailing: Ailing, latest: tuple[Heard, ...] = ()) -> Observation:
    return Observation(
        elapsed_seconds=12.0,
        fleet=(CircuitState.CLOSED,) * 40,
        breakers=40,
        tally=Tally(calls=1_481, failures=144, refused=12),
        recorder=STATS,
        ailing=ailing,
        latest=latest,
        example_user_id=latest[0].user_id if latest else None,
    )


def drawn(seen: Observation, *, notice: str = "", width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    return [
        "".join(segment.text for segment in line).rstrip()
        for line in console.render_lines(draw(seen, INTRODUCTION, notice))
    ]


def test_a_frame_fills_an_ordinary_terminal_and_shows_everything_once() -> None:
    lines = drawn(observe(Ailing(117, OPEN, 9.25), latest=(Heard(117, OPENED),)))
    assert len(lines) == 24
    text = "\n".join(lines)
    assert "39 closed, 1 open, 0 half-open" in text
    assert "events: 1,234 stored, 3 queued" in text
    assert "1,481 calls in 12 s, 144 failed, 12 refused" in text
    assert "117    open      9.2 s left      ClientResponseError: 503, at /bot[hidden]" in text
    assert "117    open      5 failures in a row; ClientResponse" in text
    assert lines[-1] == "curl http://127.0.0.1:8000/api/admin/system/circuit-breakers/117/transitions"


def test_breakers_that_do_not_fit_are_counted() -> None:
    text = "\n".join(drawn(observe(*(Ailing(user_id, OPEN, 1.0) for user_id in range(101, 121)))))
    assert "not closed (5 of 20)" in text
    assert "105 " in text
    assert "106 " not in text


@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 12), (200, 60)])
def test_any_size_can_be_drawn(width: int, height: int) -> None:
    seen = observe(Ailing(117, OPEN, 9.2), latest=(Heard(117, OPENED),))
    assert len(drawn(seen, width=width, height=height)) == height


def test_a_notice_is_shown_with_its_brackets() -> None:
    assert "notice: the event log is away [hidden]" in drawn(
        observe(), notice="the event log is away [hidden]"
    )


def test_what_a_breaker_waits_for_is_told_by_its_state() -> None:
    held = replace(OPEN, retry_at=None)
    standings = [Ailing(1, OPEN, 9.25), Ailing(1, OPEN, 0.0), Ailing(1, held, 0.0), Ailing(1, HALF_OPEN, 0.0)]
    assert [describe_standing(each) for each in standings] == [
        "9.2 s left",
        "next call tries",
        "until released",
        "probing, 1 of 2",
    ]


def test_what_was_known_names_the_longest_waits_and_counts_the_rest() -> None:
    ailing = [Ailing(100 + seconds, OPEN, float(seconds)) for seconds in range(5)] + [
        Ailing(9, HALF_OPEN, 0.0)
    ]
    assert describe_known(42, ailing) == (
        "42 breakers known, 5 still open: "
        "user 104 for another 4 s, user 103 for another 3 s, user 102 for another 2 s, and 2 more"
    )


def test_a_wait_that_is_over_ends_with_the_next_call() -> None:
    assert describe_known(1, [Ailing(117, OPEN, 0.0)]).endswith("1 still open: user 117 until its next call")


def test_nothing_known_and_nothing_open_are_told_apart() -> None:
    assert describe_known(0, []) == "no breaker is known yet: this is the first run"
    assert describe_known(42, []) == "42 breakers known, none of them open"


def test_who_changed_a_breaker_by_hand_is_named() -> None:
    by_hand = replace(OPENED, kind=Kind.RESET, reason=None, actor="ann", causes=())
    assert describe_reason(by_hand) == "reset (by ann)"


def test_events_that_were_lost_are_said() -> None:
    assert describe_events(replace(STATS, set_aside=1, lost=2)) == "1,234 stored, 3 queued, 3 LOST"


def test_the_end_tells_a_command_that_can_be_copied(tmp_path) -> None:
    folder = tmp_path / "my data"
    assert describe_end(Location(data_dir=folder), 1_234, 117) == (
        f"1,234 events were stored. To look at them: breaker-store history 117 --data-dir '{folder}'"
    )


def test_the_end_does_not_repeat_a_password() -> None:
    location = Location(database_url="postgresql://ann:sesame@db/bots")
    assert "sesame" not in describe_end(location, 1, 117)
