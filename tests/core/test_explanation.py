"""Given a breaker's transitions and what is known around one of them, then exactly this sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from breaker_store.core.events import CAUSES_LIMIT, CircuitState, EventId, Failure, Kind, Transition
from breaker_store.core.explanation import Explanation, explain
from breaker_store.core.facts import Aftermath, Facts, WellSince
from breaker_store.core.fleet_verdict import HOUR_BEFORE_US, WINDOW_US, Around, FleetVerdict
from breaker_store.core.policy import Policy
from breaker_store.core.recurrence import Step

from .scenario import SECOND, START, Scenario

USER = 101
DAY = 86_400 * SECOND

OPENED = "User 101's breaker opened at 2023-11-14 22:13:24 UTC after 5 failures in a row within 4 s, all Unauthorized"
WELL = "it had been well for 6 days, since its first kept event"
THIS_BOT = (
    "none of the other 49 breakers opened within 5 minutes of it, so it looks like this bot, not the provider"
)
CHECK = "check this bot's token and settings"


def transitions(scenario: Scenario) -> list[Transition]:
    return [event for event in scenario.stored if isinstance(event, Transition)]


def tripped(errors: Sequence[str | None] = ("Unauthorized",) * 5, **policy: Any) -> Scenario:
    """Fail once a second."""
    scenario = Scenario(Policy(failure_threshold=len(errors), **policy))
    for number, error in enumerate(errors):
        scenario.wait(1 if number else 0).fail(error=error)
    assert scenario.state.state is CircuitState.OPEN
    return scenario


def explained(
    scenario: Scenario, which: int = 0, *, origin: int | None = 0, others: int = 49, **fields: Any
) -> Explanation:
    """Explain one of the scenario's transitions, in a fleet in which nobody else trips."""
    chain = transitions(scenario)
    opening = None if origin is None else chain[origin]
    now = scenario.now
    around = Around(others + 1, START - WINDOW_US, START + WINDOW_US, 0, {}, 0, HOUR_BEFORE_US)
    known: dict[str, Any] = {
        "remaining_us": scenario.state.remaining_us(now),
        "well_since": WellSince(START - 6 * DAY, None),
        "around": around if opening is not None and opening.kind is Kind.OPENED else None,
        "steps": [Step(each.kind, each.at) for each in chain],
    }
    return explain(Facts(USER, now, chain[which], opening, scenario.state, **known | fields))


def sentence(scenario: Scenario, which: int = 0, **fields: Any) -> str:
    return explained(scenario, which, **fields).sentence


def test_a_trip_in_force_says_for_how_long_it_refuses():
    assert sentence(tripped().wait(37)) == (
        f"{OPENED}; {WELL}; it refuses calls for another 23 s; {THIS_BOT}: {CHECK}."
    )


REVOKED = "401: the token was revoked"


def revoked(failures: int) -> Scenario:
    """Fail so often, once a second, and then for good."""
    scenario = Scenario()
    for _ in range(failures):
        scenario.fail().wait(1)
    scenario.fail_for_good()
    return scenario


def with_message(scenario: Scenario, which: int = -1, message: str = REVOKED) -> Scenario:
    """Give the last cause of a stored transition a message."""
    number = scenario.stored.index(transitions(scenario)[which])
    opening = transitions(scenario)[which]
    *before, last = opening.causes
    scenario.stored[number] = replace(opening, causes=(*before, replace(last, error_message=message)))
    return scenario


def test_a_trip_at_once_names_the_permanent_error_and_what_to_do_about_it():
    scenario = with_message(revoked(0)).wait(37)
    assert sentence(scenario) == (
        "User 101's breaker opened at 2023-11-14 22:13:20 UTC at once, on a permanent error: "
        f'Unauthorized ("401: the token was revoked"); {WELL}; it refuses calls for another 23 s; {THIS_BOT}: '
        "waiting mends nothing: give this bot a new token if its own was revoked, else check its settings."
    )


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        (1, "Unauthorized, after one failure, TimeoutError; "),
        (3, "Unauthorized, after 3 failures in a row within 2 s, all TimeoutError; "),
    ],
)
def test_a_trip_at_once_tells_of_the_failures_before_it(failures, words):
    assert f" UTC at once, on a permanent error: {words}" in sentence(revoked(failures))


def test_a_trip_at_once_whose_failures_are_not_kept_says_so():
    scenario = revoked(0)
    scenario.stored[-1] = replace(transitions(scenario)[-1], causes=(), failure_count=1)
    assert " UTC at once, on a permanent error, which is not kept with it; " in sentence(scenario)


def test_what_belongs_to_a_trip_at_once_says_so():
    scenario = revoked(0).wait(60).succeed()
    assert sentence(scenario, 1).endswith(
        "; it had opened 1 min before, at 2023-11-14 22:13:20 UTC (event 7-2) at once, on a permanent error: "
        "Unauthorized; it is half-open, with 1 of 2 probes succeeded."
    )


def test_a_probe_that_meets_a_permanent_error_is_told_as_such():
    scenario = with_message(tripped().wait(60).fail_for_good())
    assert sentence(scenario, -1).startswith(
        "User 101's breaker opened again at 2023-11-14 22:14:24 UTC because a probe met a permanent error: "
        f'Unauthorized ("{REVOKED}"); '
    )


def test_the_advice_after_a_trip_at_once_is_the_usual_one_where_others_have_the_same_error():
    scenario = revoked(0)
    around = Around(50, START - WINDOW_US, START + WINDOW_US, 40, {"Unauthorized": 40}, 0, HOUR_BEFORE_US)
    found = explained(scenario, around=around)
    assert found.judgement.advice == "wait for the provider"


def test_a_wait_that_is_over_lets_the_next_call_try():
    assert "; it lets the next call try, since its wait is over; " in sentence(tripped().wait(60))


def test_an_opening_without_an_end_stays():
    assert "; it stays open until somebody closes it; " in sentence(tripped(), remaining_us=None)


def test_a_half_open_breaker_tells_how_many_probes_have_succeeded():
    scenario = tripped().wait(60)
    scenario.succeed()
    assert "; it is half-open, with 1 of 2 probes succeeded; " in sentence(scenario)


def test_reopenings_are_counted():
    scenario = tripped().wait(60).fail()
    assert "; it has opened again once since, after failed probes, and refuses calls for another 1 min; " in (
        sentence(scenario, aftermath=Aftermath(reopened=1))
    )


def test_more_reopenings_than_are_counted_are_at_least_so_many():
    aftermath = Aftermath(reopened=5_000, reopened_is_lower_bound=True)
    scenario = tripped().wait(60).fail()
    assert "; it has opened again at least 5,000 times since, " in sentence(scenario, aftermath=aftermath)


def test_a_recovery_ends_the_matter():
    scenario = tripped().wait(60).succeed().succeed()
    found = explained(scenario, aftermath=Aftermath(ending=transitions(scenario)[-1]))
    assert "; it recovered by itself 1 min later, at 2023-11-14 22:14:24 UTC; " in found.sentence
    assert found.sentence.endswith(f": it is over; should it come back, {CHECK}.")


def test_a_suspension_says_by_whom_how_long_ago_and_why():
    scenario = Scenario().suspend("alice", "unpaid bill").wait(10_800)
    assert sentence(scenario) == (
        'User 101\'s bot was suspended by alice 3 h ago, at 2023-11-14 22:13:20 UTC ("unpaid bill"); '
        "it refuses all calls until somebody resumes the bot."
    )


def test_a_resumption_names_the_suspension_that_it_ended():
    scenario = Scenario().suspend("alice", "unpaid bill").wait(60).resume("bob", "paid")
    aftermath = Aftermath(ending=transitions(scenario)[-1])
    assert '; it was resumed by bob 1 min later, at 2023-11-14 22:14:20 UTC ("paid").' in (
        sentence(scenario, aftermath=aftermath)
    )
    assert sentence(scenario, 1) == (
        'User 101\'s bot was resumed by bob at 2023-11-14 22:14:20 UTC ("paid"); '
        "it had been suspended by alice 1 min before, at 2023-11-14 22:13:20 UTC (event 7-1)."
    )


def test_a_count_that_was_carried_over_is_told_in_one_plain_line():
    scenario = (
        Scenario().fail().fail().fail().carry_over("its outcomes of before 2023-10-15 are being dropped")
    )
    assert sentence(scenario, origin=None) == (
        "User 101's breaker went on as it was at 2023-11-14 22:13:20 UTC: count of 3 failures carried over: "
        "its outcomes of before 2023-10-15 are being dropped."
    )


def test_a_reset_names_who_did_it_and_why():
    scenario = tripped().wait(30).reset("alice", "token\nrenewed")
    found = sentence(scenario, aftermath=Aftermath(ending=transitions(scenario)[-1]))
    assert r'; it was reset by alice 30 s later, at 2023-11-14 22:13:54 UTC ("token\nrenewed"); ' in found


def test_a_state_that_a_newer_version_made_is_not_explained_away():
    scenario = tripped()
    closed = replace(scenario.state, state=CircuitState.CLOSED)
    chain = transitions(scenario)
    facts = Facts(USER, scenario.now, chain[0], chain[0], closed)
    assert "; it is closed by now, in a way that this version can't read" in explain(facts).sentence


@pytest.mark.parametrize(
    ("well_since", "words"),
    [
        (WellSince(START - 3_700 * SECOND, Kind.CLOSED), "it had been well for 1 h 1 min, since its last recovery"),
        (WellSince(START - SECOND, Kind.RESET), "it had been well for 1 s, since its last reset"),
        (WellSince(START - SECOND, Kind.RELEASED), "it had been well for 1 s, since its last release"),
        (WellSince(START - SECOND, Kind.RESUMED), "it had been well for 1 s, since it was last resumed"),
        (WellSince(START, None), "nothing is kept from before these failures"),
        (WellSince(START + SECOND, None), "nothing is kept from before these failures"),
        (None, "nothing is kept from before these failures"),
    ],
)  # fmt: skip
def test_how_long_it_had_been_well_says_since_what(well_since, words):
    assert f"; {words}; " in sentence(tripped(), well_since=well_since)


MESSAGES = {
    "one failure": (("Unauthorized",), "one failure, Unauthorized"),
    "no type": ((None,) * 2, "2 failures in a row within 1 s, all without an error type"),
    "two types": (
        ("TimeoutError", "TimeoutError", "Unauthorized"),
        "3 failures in a row within 2 s, 2 TimeoutError and 1 Unauthorized (the last: Unauthorized)",
    ),
    "many types": (
        ("A", "B", "C", "C", "D"),
        "5 failures in a row within 4 s, 2 C, 1 A and 2 others (the last: D)",
    ),
}


@pytest.mark.parametrize(("errors", "words"), MESSAGES.values(), ids=MESSAGES.keys())
def test_the_errors_of_the_failures_are_counted_by_type(errors, words):
    assert f" UTC after {words}; " in sentence(tripped(errors))


def with_causes(*causes: Failure, failure_count: int | None = None) -> str:
    scenario = tripped()
    opening = replace(transitions(scenario)[0], causes=causes, failure_count=failure_count or len(causes))
    return explain(Facts(USER, scenario.now, opening, opening, scenario.state)).sentence


def failure(message: str | None, seconds: float = 0, error: str | None = "Unauthorized") -> Failure:
    return Failure(EventId(7, 1), START + round(seconds * SECOND), error, message)


def test_a_message_is_quoted_on_one_line_and_cut():
    found = with_causes(failure("\x1b[2Jno\r\n" + "x" * 2_000))
    assert r'one failure, Unauthorized ("\x1b[2Jno\r\nxxx' in found
    assert found.isprintable()
    assert len(found) < 400


def test_the_last_message_of_several_is_quoted():
    assert '2 failures in a row within 500 ms, all Unauthorized (the last: "second")' in (
        with_causes(failure("first"), failure("second", 0.5))
    )
    assert '2 failures in a row within 500 ms, 1 A and 1 B (the last: B "second")' in (
        with_causes(failure("first", 0, "A"), failure("second", 0.5, "B"))
    )


def test_failures_of_one_moment_have_no_span():
    assert "2 failures in a row at the same moment, all Unauthorized" in with_causes(
        failure(None), failure(None)
    )


def test_of_more_failures_than_are_kept_the_last_are_told():
    causes = [failure(None, number) for number in range(CAUSES_LIMIT)]
    assert "1,000 failures in a row, the last 50 of them within 49 s, all Unauthorized" in (
        with_causes(*causes, failure_count=1_000)
    )


def test_with_more_failures_than_are_kept_it_was_well_for_less_than_up_to_the_kept_ones():
    scenario = tripped()
    causes = tuple(failure(None, number) for number in range(CAUSES_LIMIT))
    opening = replace(transitions(scenario)[0], causes=causes, failure_count=150)
    well_since = WellSince(START - 10 * SECOND, Kind.CLOSED)
    facts = Facts(USER, scenario.now, opening, opening, scenario.state, well_since=well_since)
    assert "; it had been well for at most 10 s, since its last recovery; " in explain(facts).sentence


def test_what_was_opened_by_hand_on_top_of_a_trip_had_not_been_well():
    scenario = tripped()
    forced = replace(transitions(scenario)[0], kind=Kind.FORCED_OPEN, from_state=CircuitState.OPEN)
    facts = Facts(
        USER, scenario.now, forced, forced, scenario.state, well_since=WellSince(START, Kind.CLOSED)
    )
    assert facts.well_for_us is None


def test_a_trip_without_causes_says_so():
    assert "after 5 failures in a row, which are not kept with it" in with_causes(failure_count=5)


def test_trips_that_recur_are_counted():
    steps = [
        step
        for day in range(3)
        for step in (Step(Kind.OPENED, START - day * DAY), Step(Kind.CLOSED, START - day * DAY + 1))
    ]
    steps.sort(key=lambda step: step.at)
    assert "; it tripped 3 times in the 7 days up to then; " in sentence(tripped(), steps=steps)
    assert "; it tripped at least 3 times in the 7 days up to then; " in (
        sentence(tripped(), steps=[Step(Kind.CLOSED, steps[0].at - 1), *steps], steps_are_cut=True)
    )
    assert "; it tripped 3 times in the 7 days up to now; " in (
        sentence(tripped(), steps=steps, is_latest=True)
    )
    assert "tripped" not in sentence(tripped(), steps=steps[2:])


REOPENED = (
    "it had opened 1 min before, at 2023-11-14 22:13:24 UTC (event 7-6) after 5 failures in a row within 4 s"
)


def test_a_reopening_is_explained_with_its_trip():
    scenario = tripped().wait(60).fail(error="TimeoutError")
    assert sentence(scenario, 2, aftermath=Aftermath(reopened=1)).startswith(
        "User 101's breaker opened again at 2023-11-14 22:14:24 UTC because a probe failed with TimeoutError; "
        f"{REOPENED}, all Unauthorized; {WELL}; "
    )
    assert explained(scenario, 2).judgement.verdict is FleetVerdict.THIS_BOT


def test_letting_a_probe_through_is_explained_with_its_trip():
    scenario = tripped().wait(60)
    scenario.admit()
    assert sentence(scenario, 1) == (
        "User 101's breaker let a probe through at 2023-11-14 22:14:24 UTC, since the wait of 60 s is over; "
        f"{REOPENED}, all Unauthorized; it is half-open, with 0 of 2 probes succeeded."
    )


def test_closing_is_explained_with_its_trip():
    scenario = tripped().wait(60).succeed().succeed()
    assert sentence(scenario, -1) == (
        "User 101's breaker closed at 2023-11-14 22:14:24 UTC, since 2 probes in a row succeeded; "
        f"{REOPENED}, all Unauthorized."
    )


def test_a_reset_is_explained_with_its_trip():
    scenario = tripped().wait(60).reset("alice", "token renewed")
    assert sentence(scenario, -1) == (
        'User 101\'s breaker was reset by alice at 2023-11-14 22:14:24 UTC ("token renewed"); '
        f"{REOPENED}, all Unauthorized."
    )


def test_a_reset_of_a_closed_breaker_says_that_it_was_not_open():
    scenario = Scenario().reset()
    assert sentence(scenario, origin=None) == (
        "User 101's breaker was reset at 2023-11-14 22:13:20 UTC; it was not open then."
    )


def test_a_change_of_policy_says_what_holds_from_then_on():
    scenario = Scenario().change_policy(Policy(3, 0.5, 1), "bob", "a slow provider")
    assert sentence(scenario, origin=None) == (
        'User 101\'s breaker got another policy from bob at 2023-11-14 22:13:20 UTC ("a slow provider"): it opens after '
        "3 failures in a row, waits 0.5 s, and closes after 1 success."
    )


def by_hand(kind: Kind, to_state: CircuitState, version: int, seconds: int) -> Transition:
    """Make a transition that only a newer version's command decides."""
    return replace(
        transitions(tripped())[0], kind=kind, event_id=EventId(9, version), at=START + seconds * SECOND,
        version=version, position=version, to_state=to_state, actor="carol", reason="abuse", causes=(),
    )  # fmt: skip


def test_opened_by_hand_is_judged_by_nobody():
    forced = by_hand(Kind.FORCED_OPEN, CircuitState.OPEN, 1, 0)
    state = replace(tripped().state, retry_at=None)
    found = explain(Facts(USER, forced.at, forced, forced, state))
    assert found.sentence == (
        'User 101\'s breaker was opened by hand by carol at 2023-11-14 22:13:20 UTC until 2023-11-14 22:14:24 UTC ("abuse"), not by failures; '
        "it stays open until somebody closes it."
    )
    assert found.judgement is None


def test_a_release_names_who_had_opened_it():
    forced = by_hand(Kind.FORCED_OPEN, CircuitState.OPEN, 1, 0)
    released = by_hand(Kind.RELEASED, CircuitState.CLOSED, 2, 90)
    assert explain(Facts(USER, released.at, released, forced, Scenario().state)).sentence == (
        'User 101\'s breaker was released by carol at 2023-11-14 22:14:50 UTC ("abuse"); '
        "it had been opened by hand by carol 1 min 30 s before, at 2023-11-14 22:13:20 UTC (event 9-1)."
    )


def test_what_was_superseded_never_took_effect():
    opening = replace(transitions(tripped())[0], position=None)
    assert explain(Facts(USER, START, opening, None, Scenario().state)).sentence == (
        f"{OPENED}; this never took effect: another process had changed the breaker first, so it is kept as superseded."
    )


def test_what_a_newer_version_wrote_is_not_guessed_at():
    unknown = replace(
        transitions(tripped())[0],
        kind=Kind.UNRECOGNIZED,
        reason="a transition of kind 42 comes from a newer version",
    )
    assert explain(Facts(USER, START, unknown, None, Scenario().state)).sentence == (
        "What happened to user 101's breaker at 2023-11-14 22:13:24 UTC can't be told: "
        "a transition of kind 42 comes from a newer version."
    )


def test_a_breaker_that_was_never_open_is_said_to_be_well():
    facts = Facts(USER, START, None, None, Scenario().state)
    assert explain(facts).sentence == "User 101's breaker is closed, and has never been open."


def test_failures_that_have_not_tripped_it_are_told():
    facts = Facts(USER, START, None, None, Scenario().fail().fail().state)
    assert explain(facts).sentence == (
        "User 101's breaker is closed, and has never been open; it has seen 2 failures in a row, and opens after 5."
    )


def test_open_by_what_can_not_be_read_is_said():
    facts = Facts(USER, START, None, None, tripped().state)
    assert explain(facts).sentence == "User 101's breaker is open, but what opened it can't be read."
