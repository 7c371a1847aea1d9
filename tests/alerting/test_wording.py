from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_store.alerting.wording import describe_group, one_line
from breaker_store.core.alerting import AlertKind, Notice, group_notices
from breaker_store.core.events import PERMANENT_REASON, EventId

from .making import START, recovery, trip


def told(*notices: Notice) -> str:
    [group] = group_notices(notices, 10_000)
    return describe_group(group)


def test_a_trip_is_told_with_its_reason_and_its_last_error():
    assert told(trip()) == (
        "The breaker of user 101 tripped: 5 failures in a row, the last: Unauthorized: revoked."
    )


def test_a_trip_at_once_is_told_with_the_error_that_did_it_alone():
    assert told(trip(reason=PERMANENT_REASON)) == (
        "The breaker of user 101 tripped at once: a permanent error, which no other try would mend, "
        "Unauthorized: revoked."
    )


def test_a_trip_without_a_known_error_is_told_without_one():
    assert told(trip(error=None, message=None)) == (
        "The breaker of user 101 tripped: 5 failures in a row, the last: failure."
    )


def test_a_trip_of_many_is_told_with_their_number_and_the_first_error():
    assert told(*(trip(user_id, seconds=user_id / 1_000) for user_id in range(1, 2_001))) == (
        "The breakers of 2,000 users tripped within 1.9 s with Unauthorized: "
        "users 1, 2, 3, 4, 5 and 1,995 more. The first: Unauthorized: revoked."
    )


def test_a_recovery_is_told_with_how_long_it_took():
    assert told(recovery(trip())) == (
        "The breaker of user 101 recovered after 1 min 5 s: "
        "2 probes in a row succeeded, it had tripped with Unauthorized."
    )


def test_a_recovery_by_hand_is_told_with_who_did_it():
    assert told(recovery(trip(), reason=None, actor="ops")) == (
        "The breaker of user 101 recovered after 1 min 5 s by ops: it had tripped with Unauthorized."
    )


def test_a_recovery_of_many_is_told_with_what_they_had():
    assert told(recovery(trip(1)), recovery(trip(2))) == (
        "The breakers of 2 users recovered at once from Unauthorized: users 1, 2."
    )


def test_what_was_done_by_hand_to_many_is_told():
    by_hand = [
        Notice(AlertKind.SUSPENDED, user_id, user_id, EventId(1, user_id), START, "unpaid", "ops")
        for user_id in (1, 2)
    ]
    assert told(*by_hand) == "The breakers of 2 users were suspended at once: users 1, 2."
    assert told(by_hand[0]) == "The breaker of user 1 was suspended by ops: unpaid."


@pytest.mark.parametrize(
    "hostile",
    ["<!channel> help", "@everyone", "[click](https://evil.example)", "a\x1b[31mred\nnext", "`code`"],
)
def test_a_text_from_outside_calls_nobody_and_draws_nothing_in_a_chat(hostile):
    sentence = told(trip(message=hostile, error=hostile))

    assert not set("<>@[]`\x1b\n") & set(sentence)


@given(st.text(max_size=3_000))
def test_any_text_becomes_a_short_printable_line(text):
    line = one_line(text)

    assert len(line) <= 200
    assert line.isprintable()


def test_a_sentence_about_huge_texts_stays_short():
    assert len(told(trip(message="x" * 2_000, error="y" * 2_000))) < 1_000
