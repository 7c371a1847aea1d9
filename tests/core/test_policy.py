from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_store.core.policy import (
    GREATEST_COUNT,
    GREATEST_TIMEOUT_SECONDS,
    Policy,
    error_name,
)

COUNTS = ("failure_threshold", "success_threshold", "half_open_max_calls")


class BotError(Exception):
    pass


class SlowDownError(BotError):
    pass


def test_defaults_are_those_that_users_rely_on() -> None:
    """A policy with nothing said opens after 5 failures, waits 60 s, and closes after 2 successes, one at a time."""
    assert Policy() == Policy(
        failure_threshold=5, timeout_seconds=60.0, success_threshold=2, half_open_max_calls=1
    )
    assert (Policy().counted_errors, Policy().ignored_errors) == (None, ())


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [0, -1, GREATEST_COUNT + 1])
def test_a_count_out_of_bounds_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be between 1 and 1,000,000, not {value}"):
        Policy(**{field: value})


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [1, GREATEST_COUNT])
def test_the_bounds_of_a_count_are_allowed(field: str, value: int) -> None:
    assert getattr(Policy(**{field: value}), field) == value


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [2.0, "2", True, None])
def test_a_count_that_is_no_int_is_refused(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{field} must be an int"):
        Policy(**{field: value})


@pytest.mark.parametrize(
    "seconds",
    [-0.001, math.nan, math.inf, GREATEST_TIMEOUT_SECONDS + 1, pytest.param(10**400, id="no-float-so-large")],
)
def test_a_timeout_out_of_bounds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds must be between 0 and"):
        Policy(timeout_seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "microseconds"),
    [
        (0, 0),
        (60, 60_000_000),
        (59.999999, 59_999_999),
        (1.001, 1_001_000),
        (GREATEST_TIMEOUT_SECONDS, 315_360_000_000_000),
    ],
)
def test_a_timeout_is_given_in_whole_microseconds(seconds: float, microseconds: int) -> None:
    assert Policy(timeout_seconds=seconds).timeout_us == microseconds


def test_an_error_is_named_by_module_and_qualified_name_and_a_built_in_one_by_its_name() -> None:
    assert error_name(TimeoutError) == "TimeoutError"
    assert error_name(json.JSONDecodeError) == "json.decoder.JSONDecodeError"
    assert error_name(BotError) == f"{__name__}.BotError"


def test_every_exception_is_a_failure_unless_something_is_said() -> None:
    assert Policy().counts_as_failure(BotError())


@pytest.mark.parametrize("counted", [BotError, error_name(BotError)])
def test_only_counted_errors_and_their_children_are_failures(counted: type[BaseException] | str) -> None:
    policy = Policy(counted_errors=(OSError, counted))
    assert policy.counts_as_failure(BotError())
    assert policy.counts_as_failure(SlowDownError())
    assert policy.counts_as_failure(ConnectionResetError())
    assert not policy.counts_as_failure(ValueError())


def test_no_error_is_a_failure_when_none_is_counted() -> None:
    assert not Policy(counted_errors=()).counts_as_failure(BotError())


@pytest.mark.parametrize("ignored", [SlowDownError, error_name(SlowDownError)])
def test_an_ignored_error_is_no_failure_though_its_parent_is_counted(
    ignored: type[BaseException] | str,
) -> None:
    policy = Policy(counted_errors=(BotError,), ignored_errors=(ignored,))
    assert policy.counts_as_failure(BotError())
    assert not policy.counts_as_failure(SlowDownError())


def test_a_child_of_an_ignored_error_is_ignored_too() -> None:
    assert not Policy(ignored_errors=(BotError,)).counts_as_failure(SlowDownError())


@pytest.mark.parametrize("error", [5, int, None, BotError()])
@pytest.mark.parametrize("field", ["counted_errors", "ignored_errors"])
def test_what_names_no_exception_is_refused(field: str, error: object) -> None:
    with pytest.raises(TypeError, match="an exception class or its dotted name is needed"):
        Policy(**{field: (error,)})


@pytest.mark.parametrize("field", ["counted_errors", "ignored_errors"])
def test_a_bare_text_is_refused_and_not_read_letter_by_letter(field: str) -> None:
    with pytest.raises(TypeError):
        Policy(**{field: "ValueError"})


policies = st.builds(
    Policy,
    failure_threshold=st.integers(1, GREATEST_COUNT),
    timeout_seconds=st.floats(0, GREATEST_TIMEOUT_SECONDS),
    success_threshold=st.integers(1, GREATEST_COUNT),
    half_open_max_calls=st.integers(1, GREATEST_COUNT),
    counted_errors=st.none() | st.lists(st.sampled_from([BotError, "some.gone.Error", OSError])).map(tuple),
    ignored_errors=st.lists(st.sampled_from([SlowDownError, "another.Error"])).map(tuple),
)


@given(policies)
def test_a_policy_comes_back_from_json_as_it_was(policy: Policy) -> None:
    assert Policy.from_document(json.loads(json.dumps(policy.to_document()))) == policy


def test_a_stored_policy_with_an_unknown_key_is_read_without_it() -> None:
    document = Policy(failure_threshold=3).to_document() | {"slow_call_seconds": 2.0}
    assert Policy.from_document(document) == Policy(failure_threshold=3)


def test_a_stored_policy_without_a_key_has_the_default_there() -> None:
    assert Policy.from_document({"timeout_seconds": 5}) == Policy(timeout_seconds=5.0)


def test_a_stored_policy_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="failure_threshold"):
        Policy.from_document({"failure_threshold": 0})


def test_classes_and_their_names_make_the_same_policy() -> None:
    assert Policy(ignored_errors=(BotError,)) == Policy(ignored_errors=(error_name(BotError),))


@pytest.mark.parametrize("name", ["a\x00", "\ud800"])
def test_an_errors_name_that_could_not_be_stored_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no such characters"):
        Policy(ignored_errors=(name,))
