from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from breaker_store.core.events import Kind
from breaker_store.core.recurrence import DAY_US, Step, recur

MINUTE = 60_000_000
HOUR = 60 * MINUTE
NOON = int(datetime(2025, 11, 26, 12, tzinfo=UTC).timestamp()) * 1_000_000


def trip(at: int, lasting: int = 5 * MINUTE) -> list[Step]:
    return [
        Step(Kind.OPENED, at),
        Step(Kind.HALF_OPENED, at + MINUTE),
        Step(Kind.OPENED, at + 2 * MINUTE),
        Step(Kind.HALF_OPENED, at + 3 * MINUTE),
        Step(Kind.CLOSED, at + lasting),
    ]


def daily(days: int, *, hour: int = 3, drift: int = 0) -> list[Step]:
    first = NOON - (12 - hour) * HOUR - (days - 1) * DAY_US
    return [step for day in range(days) for step in trip(first + day * (DAY_US + drift))]


def test_a_breaker_that_never_tripped_has_nothing_to_tell():
    found = recur([], NOON)
    assert (found.trips, found.in_day, found.in_week, found.usual_hour) == (0, 0, 0, None)
    assert (found.mean_recovery_us, found.recoveries) == (None, 0)


def test_a_reopening_is_no_trip_of_its_own():
    assert recur(trip(NOON - HOUR), NOON).trips == 1


def test_trips_are_counted_in_the_day_and_the_week_up_to_a_moment():
    found = recur(daily(20), NOON)
    assert (found.in_day, found.in_week, found.trips) == (1, 7, 20)


def test_a_trip_exactly_a_day_ago_is_out_and_one_at_the_moment_is_in():
    found = recur([*trip(NOON - DAY_US), Step(Kind.OPENED, NOON)], NOON)
    assert (found.in_day, found.in_week) == (1, 2)


def test_the_usual_hour_is_named_from_five_trips_on():
    assert recur(daily(4), NOON).usual_hour is None
    assert recur(daily(5), NOON).usual_hour == 3


def test_an_hour_on_either_side_still_is_the_usual_hour_also_around_midnight():
    times = [NOON + 11 * HOUR, NOON + 12 * HOUR, NOON + 35 * HOUR, NOON + 37 * HOUR, NOON + 60 * HOUR]
    steps = [step for at in times for step in trip(at)]
    assert recur(steps, NOON + 61 * HOUR).usual_hour == 0


def test_many_trips_of_one_incident_make_no_usual_hour():
    steps = [step for number in range(7) for step in trip(NOON + number * MINUTE, MINUTE // 2)]
    assert recur(steps, NOON + HOUR).usual_hour is None


def test_the_hours_of_one_long_day_make_no_usual_hour():
    steps = [step for number in range(5) for step in trip(NOON + number * HOUR // 2)]
    assert recur(steps, NOON + 9 * HOUR).usual_hour is None


def test_of_a_cut_history_a_week_is_whole_if_it_begins_before():
    ending = Step(Kind.CLOSED, NOON - 8 * DAY_US)
    assert recur([ending], NOON, is_cut=True).week_is_cut is False
    assert recur([ending, *trip(NOON)], NOON - 2 * DAY_US, is_cut=True).week_is_cut is True


def test_trips_all_over_the_day_have_no_usual_hour():
    assert recur(daily(24, drift=HOUR), NOON + 40 * DAY_US).usual_hour is None


def test_the_time_to_recover_is_the_mean_over_trips_that_ended():
    steps = [
        *trip(NOON - 3 * DAY_US, 10 * MINUTE),
        *trip(NOON - DAY_US, 20 * MINUTE),
        Step(Kind.OPENED, NOON - 1),
    ]
    found = recur(steps, NOON)
    assert (found.mean_recovery_us, found.recoveries, found.trips) == (15 * MINUTE, 2, 3)


def test_opened_by_hand_is_no_trip_and_a_release_ends_what_is_open():
    steps = [
        Step(Kind.FORCED_OPEN, NOON - 5),
        Step(Kind.RELEASED, NOON - 4),
        Step(Kind.OPENED, NOON - 3),
        Step(Kind.FORCED_OPEN, NOON - 2),
        Step(Kind.RELEASED, NOON - 1),
    ]
    found = recur(steps, NOON)
    assert (found.trips, found.recoveries, found.mean_recovery_us) == (1, 1, 2)


def test_what_changes_no_state_ends_no_trip():
    steps = [
        Step(Kind.OPENED, NOON - 5),
        Step(Kind.POLICY_CHANGED, NOON - 4),
        Step(Kind.OPENED, NOON - 2),
    ]
    assert recur(steps, NOON).trips == 1


def test_where_the_beginning_is_cut_off_nothing_counts_before_an_ending():
    reopening = Step(Kind.OPENED, NOON - HOUR)
    steps = [reopening, Step(Kind.CLOSED, NOON - 50 * MINUTE), *trip(NOON - 30 * MINUTE)]
    found = recur(steps, NOON, is_cut=True)
    assert (found.trips, found.recoveries, found.since) == (1, 1, reopening.at)


kinds = st.sampled_from([
    Kind.OPENED, Kind.HALF_OPENED, Kind.CLOSED, Kind.RESET, Kind.FORCED_OPEN, Kind.POLICY_CHANGED,
])  # fmt: skip


@given(st.lists(st.tuples(kinds, st.integers(0, 10 * DAY_US))), st.booleans())
def test_the_numbers_of_any_history_agree(pairs, is_cut):
    steps = [Step(kind, NOON - 10 * DAY_US + at) for kind, at in sorted(pairs, key=lambda pair: pair[1])]
    found = recur(steps, NOON, is_cut=is_cut)
    opened = sum(step.kind is Kind.OPENED for step in steps)
    assert 0 <= found.in_day <= found.in_week <= found.trips <= opened
    assert found.recoveries <= found.trips
    assert (found.mean_recovery_us is None) == (found.recoveries == 0)
