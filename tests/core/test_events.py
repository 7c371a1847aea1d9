from __future__ import annotations

import pytest

from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Outcome, Permit, Verdict
from tests.core.scenario import START


def test_the_numbers_of_kinds_are_frozen() -> None:
    """A kind's number is in every stored row, so none changes or is used again."""
    assert {kind.name: kind.value for kind in Kind} == {
        "UNRECOGNIZED": 0,
        "SUCCESS": 1,
        "FAILURE": 2,
        "REJECTED": 3,
        "OPENED": 10,
        "HALF_OPENED": 11,
        "CLOSED": 12,
        "RESET": 13,
        "FORCED_OPEN": 14,
        "RELEASED": 15,
        "POLICY_CHANGED": 16,
        "SUSPENDED": 17,
        "RESUMED": 18,
        "ERASED": 19,
        "CARRIED_OVER": 20,
    }


def test_the_numbers_of_verdicts_are_frozen() -> None:
    assert {verdict.name: verdict.value for verdict in Verdict} == {
        "COUNTED": 0,
        "NOT_COUNTED": 1,
        "WOULD_BE_REFUSED": 2,
    }


def test_the_states_have_their_usual_names() -> None:
    assert [str(state) for state in CircuitState] == ["closed", "open", "half_open"]


def test_kinds_up_to_nine_are_outcomes_and_the_others_transitions() -> None:
    """The table's two partitions split kinds at the same number."""
    outcomes = {kind for kind in Kind if kind.is_outcome}
    assert outcomes == {Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED}
    assert all(1 <= kind <= 9 for kind in outcomes)
    transitions = set(Kind) - outcomes - {Kind.UNRECOGNIZED}
    assert all(10 <= kind <= 49 for kind in transitions)


def test_a_kind_is_shown_in_lower_case() -> None:
    assert Kind.HALF_OPENED.label == "half_opened"


def test_an_event_id_is_shown_as_writer_and_number() -> None:
    assert str(EventId(2**63 - 1, 12)) == "9223372036854775807-12"


def test_ids_of_one_writer_are_ordered_by_number() -> None:
    assert sorted([EventId(1, 10), EventId(2, 1), EventId(1, 9)]) == [
        EventId(1, 9),
        EventId(1, 10),
        EventId(2, 1),
    ]


@pytest.mark.parametrize(
    ("error_type", "error_message", "shown"),
    [
        ("TimeoutError", "no answer", "TimeoutError: no answer"),
        ("TimeoutError", None, "TimeoutError"),
        (None, "no answer", "failure: no answer"),
        (None, None, "failure"),
    ],
)
def test_a_failure_is_shown_by_what_is_known_of_it(
    error_type: str | None, error_message: str | None, shown: str
) -> None:
    assert str(Failure(EventId(1, 1), START, error_type, error_message)) == shown


def test_an_outcome_gives_all_that_explains_it_as_a_failure() -> None:
    outcome = Outcome(
        kind=Kind.FAILURE,
        event_id=EventId(1, 2),
        at=START,
        permit=Permit(3, 4),
        duration_us=5,
        operation="send_message",
        error_type="TimeoutError",
        error_message="no answer",
    )
    assert outcome.as_failure() == Failure(
        event_id=EventId(1, 2),
        at=START,
        error_type="TimeoutError",
        error_message="no answer",
        operation="send_message",
        duration_us=5,
    )


@pytest.mark.parametrize("event_id", [EventId(0, 1), EventId(2**63 - 1, 2**63 - 1)])
def test_an_events_id_is_read_back_from_its_text(event_id: EventId) -> None:
    assert EventId.read(str(event_id)) == event_id


@pytest.mark.parametrize(
    "text",
    ["", "1", "1-", "-1-2", "1--2", "01-2", "1-2-3", "1-2\n", " 1-2", "1_0-2", "\u0661-2", f"{2**63}-1"],
)
def test_what_is_no_events_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="writer-seq"):
        EventId.read(text)
