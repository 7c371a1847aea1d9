"""What a table makes of an error."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from breaker_store.core.failures import (
    BY_STATUS,
    EVERY_ERROR,
    BadAnswer,
    Category,
    ErrorReading,
    FailureTable,
)
from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS

TRANSIENT, DECLINED, PERMANENT = Category.TRANSIENT, Category.DECLINED, Category.PERMANENT
RATE_LIMITED, UNKNOWN = Category.RATE_LIMITED, Category.UNKNOWN

TEN_YEARS = GREATEST_TIMEOUT_SECONDS
NOON = "Wed, 21 Oct 2015 12:00:00 GMT"


class ClientError(Exception):
    """What a client raises, with whatever it carries."""

    def __init__(self, **carried: Any) -> None:
        super().__init__()
        vars(self).update(carried)


class NearerError(ClientError):
    pass


class NearestError(NearerError):
    pass


class WithAttributes:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class BrokenError(Exception):
    """Whose own code fails, whatever it is asked."""

    @property
    def retry_after(self) -> float:
        raise RuntimeError("not even that")

    status = response = headers = retry_after


def name_of(error_type: type) -> str:
    return f"{__name__}.{error_type.__name__}"


def test_without_an_entry_every_error_is_unknown_and_a_failure() -> None:
    assert EVERY_ERROR.read(ValueError()) == ErrorReading(UNKNOWN)
    assert UNKNOWN.is_failure


@pytest.mark.parametrize(
    ("category", "is_failure"),
    [(TRANSIENT, True), (PERMANENT, True), (UNKNOWN, True), (RATE_LIMITED, False), (DECLINED, False)],
)
def test_a_failure_is_what_says_that_the_bot_or_its_service_is_sick(
    category: Category, is_failure: bool
) -> None:
    assert category.is_failure is is_failure


@pytest.mark.parametrize(
    ("raised", "category"),
    [(ClientError, TRANSIENT), (NearerError, DECLINED), (NearestError, DECLINED), (ValueError, UNKNOWN)],
)
def test_the_nearest_class_decides_whatever_the_order_of_the_entries(
    raised: type[Exception], category: Category
) -> None:
    meanings = {ClientError: TRANSIENT, NearerError: DECLINED}
    assert FailureTable(meanings).read(raised()).category is category
    assert FailureTable(dict(reversed(meanings.items()))).read(raised()).category is category


def test_a_class_may_be_given_by_its_dotted_name() -> None:
    table = FailureTable({name_of(ClientError): PERMANENT, "OSError": TRANSIENT})
    assert table.read(NearerError()).category is PERMANENT
    assert table.read(ConnectionResetError()).category is TRANSIENT


def test_a_class_that_everything_is_made_of_speaks_for_all_that_no_other_speaks_of() -> None:
    table = FailureTable({Exception: DECLINED, ClientError: PERMANENT})
    assert table.read(ValueError()).category is DECLINED
    assert table.read(ClientError()).category is PERMANENT


@pytest.mark.parametrize(
    ("status", "category", "error_type"),
    [
        (404, DECLINED, "http.NotFound"),
        (418, TRANSIENT, "http.ImATeapot"),
        (499, DECLINED, "http.Status499"),
        (503, UNKNOWN, "http.ServiceUnavailable"),
        (302, UNKNOWN, None),
        (200, UNKNOWN, None),
        (0, UNKNOWN, None),
        (None, UNKNOWN, None),
    ],
)
def test_a_status_decides_before_its_hundred_and_names_the_error(
    status: int | None, category: Category, error_type: str | None
) -> None:
    table = FailureTable({"4xx": DECLINED, 418: TRANSIENT, ClientError: BY_STATUS})
    assert table.read(ClientError(status=status)) == ErrorReading(category, error_type)


@pytest.mark.parametrize(
    "carried",
    [
        {"status": 404},
        {"status_code": 404},
        {"response": WithAttributes(status_code=404)},
        {"response": WithAttributes(status=404)},
        {"status": "none of HTTP's", "status_code": 404},
    ],
)
def test_a_status_is_found_wherever_clients_keep_it(carried: dict[str, Any]) -> None:
    table = FailureTable({404: DECLINED, ClientError: BY_STATUS})
    assert table.read(ClientError(**carried)) == ErrorReading(DECLINED, "http.NotFound")


def test_the_status_of_an_error_whose_class_decides_means_nothing() -> None:
    table = FailureTable({500: TRANSIENT, ClientError: DECLINED})
    assert table.read(ClientError(status=500)) == ErrorReading(DECLINED)


def test_a_bad_answer_is_read_by_its_status_in_every_table() -> None:
    answer = object()
    error = BadAnswer(answer, 429, {"Retry-After": "7"})
    table = FailureTable({429: RATE_LIMITED, Exception: DECLINED})
    assert table.read(error) == ErrorReading(RATE_LIMITED, "http.TooManyRequests", 7.0)
    assert EVERY_ERROR.read(error) == ErrorReading(UNKNOWN, "http.TooManyRequests", 7.0)
    assert (error.answer, str(error), str(BadAnswer(answer, 599))) == (answer, "429 Too Many Requests", "599")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (7, 7.0),
        (0.5, 0.5),
        (timedelta(minutes=1), 60.0),
        (0, 0.0),
        (-3, 0.0),
        (timedelta(seconds=-3), 0.0),
        (math.inf, TEN_YEARS),
        (10**400, TEN_YEARS),
        (math.nan, None),
        (True, None),
        ("7", None),
        (None, None),
    ],
)
def test_a_wait_is_read_from_the_error_itself_within_bounds(told: object, seconds: float | None) -> None:
    assert EVERY_ERROR.read(ClientError(retry_after=told)).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "999999999"}, TEN_YEARS),
        ({"Retry-After": "Wed, 21 Oct 2015 12:00:30 GMT", "Date": NOON}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 11:00:00 GMT", "Date": NOON}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 12:00:30 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 12:00:30 -0000", "Date": NOON}, None),
        ({"Retry-After": "soon", "Date": NOON}, None),
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": 7}, None),
        ({"Date": NOON}, None),
        ({}, None),
        ("no headers", None),
    ],
)
@pytest.mark.parametrize("place", ["the error", "its response"])
def test_a_wait_is_read_from_the_headers_in_seconds_or_as_a_date_against_the_answers_own(
    place: str, headers: object, seconds: float | None
) -> None:
    error = (
        ClientError(headers=headers)
        if place == "the error"
        else ClientError(response=WithAttributes(headers=headers))
    )
    assert EVERY_ERROR.read(error).retry_after_seconds == seconds


def test_what_the_error_itself_says_comes_before_its_headers() -> None:
    error = ClientError(retry_after=3, headers={"Retry-After": "7"})
    assert EVERY_ERROR.read(error).retry_after_seconds == 3.0


def test_an_error_whose_own_code_fails_is_read_all_the_same() -> None:
    assert FailureTable({BrokenError: BY_STATUS}).read(BrokenError()) == ErrorReading(UNKNOWN)


@pytest.mark.parametrize(
    ("meanings", "error", "match"),
    [
        ({object: TRANSIENT}, TypeError, "an exception class, its dotted name or an HTTP status is needed"),
        ({True: TRANSIENT}, TypeError, "is needed, not True"),
        ({4.04: TRANSIENT}, TypeError, "is needed, not 4.04"),
        ({None: TRANSIENT}, TypeError, "is needed, not None"),
        ({99: TRANSIENT}, ValueError, "between 100 and 599, unlike 99"),
        ({600: TRANSIENT}, ValueError, "unlike 600"),
        ({ValueError: "transient"}, TypeError, "means a Category, not 'transient'"),
        ({ValueError: None}, TypeError, "means a Category, not None"),
        ({404: BY_STATUS}, TypeError, "404 means a Category, not 'by_status'"),
        ({"4xx": BY_STATUS}, TypeError, "'4xx' means a Category, not 'by_status'"),
    ],
)
def test_what_no_table_can_say_is_refused_with_what_is_needed(
    meanings: dict[Any, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        FailureTable(meanings)


@pytest.mark.parametrize("as_table", [False, True])
def test_changes_come_before_what_a_table_says_and_leave_the_table_as_it_is(as_table: bool) -> None:
    table = FailureTable({ClientError: DECLINED, 404: DECLINED, "5xx": TRANSIENT})
    changes: Any = {ClientError: PERMANENT, "4xx": UNKNOWN, 404: TRANSIENT}
    changed = table | (FailureTable(changes) if as_table else changes)
    assert changed.meanings == {
        name_of(ClientError): PERMANENT, 404: TRANSIENT, "4xx": UNKNOWN, "5xx": TRANSIENT,
    }  # fmt: skip
    assert table.read(ClientError()).category is DECLINED


def test_a_bad_change_is_refused_too() -> None:
    with pytest.raises(TypeError, match="means a Category"):
        EVERY_ERROR | {ValueError: "never"}


def test_what_a_table_says_cannot_be_changed_behind_it() -> None:
    with pytest.raises(TypeError):
        EVERY_ERROR.meanings["ValueError"] = DECLINED  # type: ignore[index]
