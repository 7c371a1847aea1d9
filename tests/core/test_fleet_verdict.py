"""Whose trouble a trip looks like: given these failures and these others, then this verdict, and these words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_store.core.events import EventId, Failure
from breaker_store.core.fleet_verdict import HOUR_BEFORE_US, WINDOW_US, Around, FleetVerdict, judge

TRIP = 1_764_126_729_000_000
THIS_BOT, EVERYBODY = FleetVerdict.THIS_BOT, FleetVerdict.EVERYBODY
SEVERAL, UNCLEAR = FleetVerdict.SEVERAL_TROUBLES, FleetVerdict.UNCLEAR


def failures(*errors: str | None) -> tuple[Failure, ...]:
    return tuple(Failure(EventId(1, seq), TRIP, error) for seq, error in enumerate(errors, start=1))


def around(breakers: int, errors: dict[str | None, int] | None = None, **fields: Any) -> Around:
    by_error = errors or {}
    return Around(**{
        "breakers": breakers, "since": TRIP - WINDOW_US, "until": TRIP + WINDOW_US,
        "opened": sum(by_error.values()), "by_error": by_error, "same_before": 0, "before_us": HOUR_BEFORE_US,
    } | fields)  # fmt: skip


REVOKED = ("Unauthorized",) * 5

VERDICTS = {
    "nobody else opened": (REVOKED, around(50), THIS_BOT),
    "others opened with another error": (REVOKED, around(3_000, {"NetworkError": 2_000}), THIS_BOT),
    "two others have it": (REVOKED, around(50, {"Unauthorized": 2}), UNCLEAR),
    "three others have it": (REVOKED, around(50, {"Unauthorized": 3}), EVERYBODY),
    "both others of a fleet of three have it": (REVOKED, around(3, {"Unauthorized": 2}), EVERYBODY),
    "the only other one has it": (REVOKED, around(2, {"Unauthorized": 1}), UNCLEAR),
    "the only other one is well": (REVOKED, around(2), THIS_BOT),
    "there is no other one": (REVOKED, around(1), UNCLEAR),
    "many have it, as at all times": (REVOKED, around(90_000, {"Unauthorized": 7}, same_before=42), UNCLEAR),
    "three times as many as usual": (REVOKED, around(90_000, {"Unauthorized": 21}, same_before=42), EVERYBODY),
    "nobody has it now, but many did": (REVOKED, around(50, same_before=10), UNCLEAR),
    "nobody has it now, and few did": (REVOKED, around(50, same_before=9), THIS_BOT),
    "the busy hour was only looked at for ten minutes": (
        REVOKED,
        around(90_000, {"Unauthorized": 20}, same_before=7, before_us=2 * WINDOW_US),
        UNCLEAR,
    ),
    "nothing could be looked at before": (REVOKED, around(50, {"Unauthorized": 3}, before_us=0), EVERYBODY),
    "an earlier error is everybody's, the last is nobody's": (
        ("NetworkError", "NetworkError", "Unauthorized"),
        around(3_000, {"NetworkError": 2_000}),
        SEVERAL,
    ),
    "the last error is everybody's, an earlier one is nobody's": (
        ("Unauthorized", "NetworkError"),
        around(3_000, {"NetworkError": 2_000}),
        EVERYBODY,
    ),
    "an earlier error is a few others'": (("A", "B"), around(50, {"A": 2}), THIS_BOT),
    "no type, nobody else opened": ((None,), around(50), THIS_BOT),
    "no type, others opened without one": ((None,), around(50, {None: 40}), UNCLEAR),
    "no failures are kept": ((), around(50, {"NetworkError": 40}), UNCLEAR),
}  # fmt: skip


@pytest.mark.parametrize(("errors", "others", "verdict"), VERDICTS.values(), ids=VERDICTS.keys())
def test_the_verdict_follows_the_rule(errors, others, verdict):
    assert judge(failures(*errors), others).verdict is verdict


FINDINGS = {
    "nobody": (
        around(50),
        "none of the other 49 breakers opened within 5 minutes of it, so it looks like this bot, not the provider",
    ),
    "nobody yet": (
        around(50, is_over=False),
        "so far none of the other 49 breakers opened within 5 minutes of it, so it looks like this bot, not the provider",
    ),
    "another trouble": (
        around(3_000, {"NetworkError": 2_000, "TimeoutError": 4}),
        (
            "none of the other 2,999 breakers opened within 5 minutes of it with this error (2,004 did with others, "
            "mostly NetworkError, which looks like another trouble), so it looks like this bot, not the provider"
        ),
    ),
    "everybody": (
        around(3_000, {"Unauthorized": 2_000, "NetworkError": 3}),
        (
            "2,000 of the other 2,999 breakers opened within 5 minutes of it with the same error (3 more with other "
            "errors), so it looks like the provider, not this bot"
        ),
    ),
    "all of a fleet": (
        around(6, {"Unauthorized": 5}),
        (
            "all 5 other breakers opened within 5 minutes of it with the same error, so it looks like the provider, not "
            "this bot"
        ),
    ),
    "more than is counted": (
        around(
            100_000,
            {"Unauthorized": 2_000},
            is_cut=True,
            since=TRIP - 30_000_000,
            until=TRIP + 64_000_000,
        ),
        (
            "at least 2,000 of the other 99,999 breakers opened in the 1 min 34 s around it that were looked at "
            "with the same error, so it looks like the provider, not this bot"
        ),
    ),
    "another trouble, more than is counted": (
        around(50, {"NetworkError": 20}, is_cut=True, since=TRIP, until=TRIP + 60_000_000),
        (
            "none of the other 49 breakers opened in the 1 min around it that were looked at with this error (at least "
            "20 did with others, mostly NetworkError, which looks like another trouble), so it looks like this bot, not "
            "the provider"
        ),
    ),
    "another trouble, so many that nothing can be told": (
        around(50, {"NetworkError": 20}, is_cut=True, since=TRIP, until=TRIP + 2_000_000),
        (
            "none of the other 49 breakers opened in the 2 s around it that were looked at with this error, too short a "
            "time to tell whose trouble it is"
        ),
    ),
    "two": (
        around(50, {"Unauthorized": 2}),
        (
            "2 of the other 49 breakers opened within 5 minutes of it with the same error, too few to tell whose trouble "
            "it is"
        ),
    ),
    "as usual": (
        around(90_000, {"Unauthorized": 7}, same_before=42),
        (
            "7 of the other 89,999 breakers opened within 5 minutes of it with the same error, but 42 did in the hour "
            "before that, so that is not much more than usual"
        ),
    ),
    "before": (
        around(50, same_before=30),
        (
            "none of the other 49 breakers opened within 5 minutes of it with this error, but 30 did in the hour before "
            "that, so whose trouble it is can't be told"
        ),
    ),
    "the only other one": (
        around(2, {"NetworkError": 1}),
        (
            "the only other breaker did not open within 5 minutes of it with this error (1 did with others, mostly "
            "NetworkError, which looks like another trouble), so it looks like this bot, not the provider"
        ),
    ),
    "alone": (
        around(1),
        "there is no other breaker to compare it with, so whose trouble it is can't be told",
    ),
}


@pytest.mark.parametrize(("others", "finding"), FINDINGS.values(), ids=FINDINGS.keys())
def test_the_finding_says_what_the_verdict_rests_on(others, finding):
    assert judge(failures(*REVOKED), others).finding == finding


def test_errors_without_a_type_are_not_compared():
    judgement = judge(failures(None), around(50, {None: 40, "NetworkError": 1}))
    assert judgement.finding == (
        "41 of the other 49 breakers opened within 5 minutes of it, but without an error type of its own it can't be "
        "compared with them"
    )
    assert judgement.same_error == 0


def test_several_troubles_name_the_error_that_is_everybodys():
    judgement = judge(failures("A", "NetworkError", "B"), around(9, {"A": 3, "NetworkError": 4}))
    assert judgement.finding == (
        "4 of the other 8 breakers opened within 5 minutes of it with NetworkError, which only its earlier failures "
        "have, so several troubles seem to have met"
    )


def test_the_name_of_an_error_is_printable_and_cut():
    judgement = judge(failures("A"), around(9, {f"\x1b[2J{'x' * 200}": 4}))
    assert judgement.finding.isprintable()
    assert len(judgement.finding) < 400


names = st.sampled_from(["A", "B", "C", None])


@given(
    st.lists(names, max_size=6),
    st.dictionaries(names, st.integers(0, 30), max_size=4),
    st.integers(1, 200),
    st.integers(0, 200),
)
def test_this_bot_is_never_said_where_anybody_shares_its_error(errors, by_error, more, same_before):
    others = around(sum(by_error.values()) + more, by_error, same_before=same_before)
    judgement = judge(failures(*errors), others)
    shared = by_error.get(errors[-1], 0) if errors and errors[-1] else 0
    assert judgement.same_error == shared
    if judgement.verdict is THIS_BOT:
        assert shared == 0
    if judgement.verdict is EVERYBODY:
        assert shared >= 2
