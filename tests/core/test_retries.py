"""What became of calls that were tried again, from their outcomes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from breaker_store.core.events import EventId, Kind, Outcome, Permit, Verdict
from breaker_store.core.retries import Attempts, Ending, add_up

CALLS = some.lists(
    some.tuples(
        some.lists(some.sampled_from([Ending.FAILED, Ending.RATE_LIMITED]), max_size=4),
        some.sampled_from([Ending.SUCCEEDED, Ending.SUCCEEDED, Ending.FAILED, Ending.DECLINED]),
    ),
    max_size=20,
)


def outcome(
    kind: Kind, error: str | None = None, verdict: Verdict = Verdict.COUNTED, attempt: int | None = None
) -> Outcome:
    return Outcome(
        kind,  # type: ignore[arg-type]
        EventId(7, 1),
        0,
        Permit(0, 0),
        verdict=verdict,
        error_type=error,
        attempt=attempt,
    )


@pytest.mark.parametrize(
    ("ended", "ending"),
    [
        (outcome(Kind.SUCCESS), Ending.SUCCEEDED),
        (outcome(Kind.SUCCESS, verdict=Verdict.NOT_COUNTED), Ending.SUCCEEDED),
        (outcome(Kind.SUCCESS, "http.NotFound"), Ending.DECLINED),
        (outcome(Kind.SUCCESS, "http.TooManyRequests", Verdict.NOT_COUNTED), Ending.RATE_LIMITED),
        (outcome(Kind.SUCCESS, "OwnSlowDownError", Verdict.NOT_COUNTED), Ending.RATE_LIMITED),
        (outcome(Kind.FAILURE, "telegram.error.RetryAfter"), Ending.RATE_LIMITED),
        (outcome(Kind.FAILURE, "TimeoutError"), Ending.FAILED),
        (outcome(Kind.FAILURE, verdict=Verdict.NOT_COUNTED), Ending.FAILED),
    ],
)
def test_an_outcome_tells_how_its_attempt_ended(ended: Outcome, ending: Ending) -> None:
    assert Attempts.of(ended) == Attempts(1, ending, ended.error_type)


def test_an_outcome_without_a_number_is_a_first_attempt() -> None:
    assert Attempts.of(outcome(Kind.SUCCESS)).attempt == 1
    assert Attempts.of(outcome(Kind.SUCCESS, attempt=3)).attempt == 3


@given(CALLS)
def test_calls_are_counted_by_their_attempts(calls: list[tuple[list[Ending], Ending]]) -> None:
    whole = [[*before, last] for before, last in calls]
    found = add_up(
        Attempts(number, ending, None if ending is Ending.SUCCEEDED else str(ending))
        for endings in whole
        for number, ending in enumerate(endings, 1)
    )
    retried = [endings for endings in whole if len(endings) > 1]
    assert found.first_attempts == len(whole)
    assert found.retries == sum(len(endings) - 1 for endings in retried)
    assert found.retried_calls == len(retried)
    assert found.recovered_calls == sum(endings[-1] is Ending.SUCCEEDED for endings in retried)
    assert found.rate_limited == sum(endings.count(Ending.RATE_LIMITED) for endings in whole)
    ended_with = Counter(ending for endings in retried for ending in endings[1:])
    del ended_with[Ending.SUCCEEDED]
    assert found.errors == Counter({str(ending): count for ending, count in ended_with.items()})


def test_of_nothing_there_is_nothing() -> None:
    found = add_up([])
    assert (found.first_attempts, found.retries, found.retried_calls, found.endings) == (0, 0, 0, {})
