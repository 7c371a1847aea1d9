from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_store.core.alerting import AlertKind, Notice, alert_kind, group_notices, notice_of
from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Transition
from breaker_store.core.policy import Policy

LARGEST = 100
USER = 101


def transition(kind: Kind, was: CircuitState = CircuitState.CLOSED, error: str | None = None) -> Transition:
    """Make a transition that won."""
    causes = (Failure(EventId(1, 1), 1, "Earlier"), Failure(EventId(1, 2), 2, error)) if error else ()
    opened = kind in {Kind.OPENED, Kind.FORCED_OPEN}
    return Transition(
        kind=kind,
        event_id=EventId(1, 3),
        at=3,
        version=1,
        generation=1,
        era=1,
        follows=None,
        from_state=was,
        to_state=CircuitState.OPEN if opened else CircuitState.CLOSED,
        policy=Policy(),
        causes=causes,
        position=9,
    )


TRIP = transition(Kind.OPENED, error="Unauthorized")


@pytest.mark.parametrize(
    ("kind", "was", "told"),
    [
        (Kind.OPENED, CircuitState.CLOSED, AlertKind.TRIPPED),
        (Kind.OPENED, CircuitState.HALF_OPEN, None),
        (Kind.HALF_OPENED, CircuitState.OPEN, None),
        (Kind.CLOSED, CircuitState.HALF_OPEN, AlertKind.RECOVERED),
        (Kind.RESET, CircuitState.OPEN, AlertKind.RECOVERED),
        (Kind.RELEASED, CircuitState.OPEN, AlertKind.RECOVERED),
        (Kind.RESUMED, CircuitState.OPEN, AlertKind.RECOVERED),
        (Kind.FORCED_OPEN, CircuitState.CLOSED, AlertKind.FORCED_OPEN),
        (Kind.SUSPENDED, CircuitState.CLOSED, AlertKind.SUSPENDED),
        (Kind.POLICY_CHANGED, CircuitState.CLOSED, None),
        (Kind.UNRECOGNIZED, CircuitState.CLOSED, None),
    ],
)
def test_each_kind_of_transition_is_told_as_what_it_is_to_people(kind, was, told):
    assert alert_kind(transition(kind, was)) is told


def test_a_superseded_trip_is_not_told():
    assert notice_of(USER, replace(TRIP, position=None)) is None


def test_the_reset_of_a_breaker_that_was_well_is_not_told():
    assert notice_of(USER, transition(Kind.RESET)) is None


def test_a_trip_is_told_with_the_last_of_its_causes_alone():
    notice = notice_of(USER, TRIP)

    assert notice.error == "Unauthorized"
    assert notice.cause == TRIP.causes[-1]


def test_a_recovery_has_the_error_of_the_trip_that_it_ends():
    trip = notice_of(USER, TRIP)

    recovery = notice_of(USER, transition(Kind.RESET, CircuitState.OPEN), (trip,))

    assert (recovery.kind, recovery.error) == (AlertKind.RECOVERED, "Unauthorized")


def test_a_recovery_whose_trip_is_not_known_is_told_without_an_error():
    recovery = notice_of(USER, transition(Kind.CLOSED, CircuitState.HALF_OPEN))

    assert (recovery.kind, recovery.error) == (AlertKind.RECOVERED, None)


def make(kind: AlertKind, user_id: int, position: int, error: str | None = None) -> Notice:
    event_id = EventId(1, position)
    cause = Failure(event_id, position, error)
    if kind is AlertKind.RECOVERED:
        trip = Notice(AlertKind.TRIPPED, user_id, 0, event_id, 0, cause=cause)
        return Notice(kind, user_id, position, event_id, position, ended=(trip,))
    return Notice(kind, user_id, position, event_id, position, cause=cause)


def positions(notices, largest=LARGEST) -> list[list[int]]:
    return [[notice.position for notice in group.notices] for group in group_notices(notices, largest)]


T, R = AlertKind.TRIPPED, AlertKind.RECOVERED


def test_trips_of_many_for_the_same_error_are_one_group():
    trips = [make(T, user_id, user_id, "Timeout") for user_id in range(1, 2_001)]

    [group] = group_notices(trips, 10_000)

    assert (group.kind, group.error, len(group.notices)) == (T, "Timeout", 2_000)


def test_trips_for_different_errors_and_recoveries_are_groups_of_their_own():
    notices = [
        make(T, 1, 1, "A"),
        make(T, 2, 2, "B"),
        make(R, 3, 3, "A"),
        make(T, 4, 4, "A"),
        make(R, 5, 5, "A"),
    ]

    assert positions(notices) == [[1, 4], [2], [3, 5]]


def test_a_user_who_trips_again_after_recovering_begins_a_new_group_which_others_join():
    notices = [make(T, 1, 1), make(R, 1, 2), make(T, 1, 3), make(T, 2, 4)]

    assert positions(notices) == [[1], [2], [3, 4]]


def test_a_full_group_is_followed_by_another():
    assert positions([make(T, user_id, user_id) for user_id in range(1, 6)], 2) == [[1, 2], [3, 4], [5]]


histories = st.lists(
    st.tuples(st.sampled_from(AlertKind), st.integers(1, 4), st.sampled_from([None, "A", "B"])), max_size=40
).map(lambda drawn: [make(kind, user, at, error) for at, (kind, user, error) in enumerate(drawn, 1)])


@given(histories, st.integers(1, 10))
def test_any_history_is_told_whole_once_in_each_users_order_and_the_same_each_time(notices, largest):
    groups = group_notices(notices, largest)

    told = [notice for group in groups for notice in group.notices]
    assert sorted(told, key=lambda notice: notice.position) == notices
    by_user = defaultdict(list)
    for notice in told:
        by_user[notice.user_id].append(notice.position)
    assert all(found == sorted(found) for found in by_user.values())
    assert groups == group_notices(notices, largest)


@given(histories, st.integers(1, 10))
def test_any_group_is_of_one_kind_and_error_with_each_user_once_and_not_too_large(notices, largest):
    for group in group_notices(notices, largest):
        assert {(notice.kind, notice.error) for notice in group.notices} == {(group.kind, group.error)}
        users = [notice.user_id for notice in group.notices]
        assert len(users) == len(set(users)) <= largest
