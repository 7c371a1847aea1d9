"""What came of an action, and what a trip came after: the transitions around it, and what is said."""

from __future__ import annotations

import pytest

from breaker_store.core.events import CircuitState, Kind
from breaker_store.core.sequel import Link, remark
from tests.core.scenario import SECOND, START

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def link(
    kind: Kind,
    seconds: int,
    from_state: CircuitState,
    to_state: CircuitState,
    actor: str | None = None,
    **more: int,
) -> Link:
    return Link(kind, START + seconds * SECOND, from_state, to_state, actor, **more)


RESET = link(Kind.RESET, 0, OPEN, CLOSED, "alice")
FORCED = link(Kind.FORCED_OPEN, 0, CLOSED, OPEN, "alice", retry_at=START + 600 * SECOND)
FOR_EVER = link(Kind.FORCED_OPEN, 0, CLOSED, OPEN, "alice")
SUSPENDED = link(Kind.SUSPENDED, 0, OPEN, OPEN, "alice")
TRIP = link(Kind.OPENED, 41, CLOSED, OPEN)
PROBE = link(Kind.HALF_OPENED, 700, OPEN, HALF_OPEN)


@pytest.mark.parametrize(
    ("action", "after", "text"),
    [
        (RESET, [], "well since"),
        (RESET, [TRIP], "tripped again 41 s later"),
        (link(Kind.RESET, 0, CLOSED, CLOSED), [TRIP], "tripped 41 s later"),
        (RESET, [link(Kind.RESET, 5, CLOSED, CLOSED, "bob")], "reset again 5 s later by bob"),
        (RESET, [link(Kind.FORCED_OPEN, 5, CLOSED, OPEN, "bob")], "forced open 5 s later by bob"),
        (RESET, [link(Kind.UNRECOGNIZED, 5, CLOSED, CLOSED)], None),
        (FORCED, [], "still open"),
        (FORCED, [link(Kind.RELEASED, 90, OPEN, CLOSED, "bob")], "released 1 min 30 s later by bob"),
        (FORCED, [link(Kind.FORCED_OPEN, 90, OPEN, OPEN)], "forced open again 1 min 30 s later"),
        (FORCED, [PROBE], "half open"),
        (FORCED, [PROBE, link(Kind.CLOSED, 701, HALF_OPEN, CLOSED)], "recovered 11 min 41 s later"),
        (FORCED, [PROBE, link(Kind.OPENED, 701, HALF_OPEN, OPEN)], "opened again 11 min 41 s later"),
        (SUSPENDED, [], "still suspended"),
        (SUSPENDED, [link(Kind.RESUMED, 90, OPEN, CLOSED, "bob")], "resumed 1 min 30 s later by bob"),
        (SUSPENDED, [link(Kind.SUSPENDED, 90, OPEN, OPEN)], "suspended again 1 min 30 s later"),
        (link(Kind.RESUMED, 0, OPEN, CLOSED), [TRIP], "tripped again 41 s later"),
        (link(Kind.RELEASED, 0, OPEN, CLOSED), [TRIP], "tripped again 41 s later"),
        (link(Kind.POLICY_CHANGED, 0, CLOSED, CLOSED), [TRIP], "tripped 41 s later"),
        (link(Kind.POLICY_CHANGED, 0, HALF_OPEN, HALF_OPEN), [], "half open"),
    ],
)  # fmt: skip
def test_what_came_of_an_action_is_told_by_what_followed(
    action: Link, after: list[Link], text: str | None
) -> None:
    assert remark(action, None, after, START + 100 * SECOND) == text


def test_being_forced_open_is_over_with_its_time_though_no_call_has_come() -> None:
    later = START + 600 * SECOND
    assert remark(FORCED, None, [], later) == "its time is over, and no call has come since"
    assert remark(FOR_EVER, None, [], later) == "still open"


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (RESET, "tripped again 41 s after the reset by alice"),
        (link(Kind.RELEASED, 1, OPEN, CLOSED), "tripped again 40 s after the release"),
        (link(Kind.RESET, 0, CLOSED, CLOSED, "bob\x1b[2J"), "tripped 41 s after the reset by bob\\x1b[2J"),
        (link(Kind.CLOSED, 0, HALF_OPEN, CLOSED), None),
        (None, None),
    ],
)
def test_a_trip_names_the_action_that_it_came_after(before: Link | None, text: str | None) -> None:
    assert remark(TRIP, before, [], START) == text


def test_nothing_is_said_of_what_happened_by_itself() -> None:
    assert remark(PROBE, FORCED, [TRIP], START) is None
