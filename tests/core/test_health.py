"""How a bot is, by its recent outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from breaker_store.core.events import CircuitState, EventId, Kind, Outcome, Permit, Verdict
from breaker_store.core.health import (
    MINUTE_US,
    Overall,
    Status,
    Tally,
    Thresholds,
    judge,
    judge_fleet,
    says_too_fast,
    tally,
)
from breaker_store.failures import KNOWN_CLIENTS, BadAnswer, Category

ERRORS = some.sampled_from([None, "TimeoutError", "aiogram.exceptions.TelegramRetryAfter"])


@some.composite
def outcomes(draw: some.DrawFn) -> list[Outcome]:
    """Outcomes of one bot, in order."""
    drawn = draw(
        some.lists(
            some.tuples(
                some.sampled_from([Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED]),
                some.none() | some.integers(0, 10**8),
                ERRORS,
            ),
            max_size=30,
        )
    )
    return [
        Outcome(
            kind, EventId(7, number), number * 1_000, Permit(0, 0), duration_us=duration, error_type=error
        )
        for number, (kind, duration, error) in enumerate(drawn, 1)
    ]


def an_outcome(
    kind: Kind, at: int, duration_us: int | None = 1_000, error_type: str | None = None
) -> Outcome:
    return Outcome(kind, EventId(7, at), at, Permit(0, 0), duration_us=duration_us, error_type=error_type)


def judged(**facts: object) -> Status:
    usual: dict[str, object] = {
        "error_rate": 0.0,
        "failure_run": 0,
        "mean_ms": 10.0,
        "average_ms": 10.0,
        "state": CircuitState.CLOSED,
        "is_suspended": False,
    }
    return judge(**(usual | facts)).status  # type: ignore[arg-type]


@given(outcomes(), some.data())
def test_minutes_that_were_tallied_apart_add_up_to_the_fold_of_all(
    found: list[Outcome], data: some.DataObject
) -> None:
    cut = data.draw(some.integers(0, len(found)))
    whole, parts = tally(found), tally(found[:cut]) + tally(found[cut:])
    assert parts.average_ms == pytest.approx(whole.average_ms)
    for field in set(Tally.__dataclass_fields__) - {"weighted_us", "weight_left"}:
        assert getattr(parts, field) == getattr(whole, field)


@given(outcomes())
def test_the_order_in_which_events_arrive_does_not_matter(found: list[Outcome]) -> None:
    assert tally(reversed(found)) == tally(found)


@given(outcomes())
def test_the_weighted_average_is_the_old_monitors(found: list[Outcome]) -> None:
    average = None
    for outcome in found:
        if outcome.kind is not Kind.REJECTED and outcome.duration_us is not None:
            taken = outcome.duration_us / 1_000
            average = taken if average is None else 0.3 * taken + 0.7 * average
    assert tally(found).average_ms == pytest.approx(average)


def test_a_refused_call_is_a_request_and_no_failure() -> None:
    refused = Outcome(Kind.REJECTED, EventId(7, 1), 1, Permit(0, 0), count=3)
    counted = tally([refused])
    assert (counted.requests, counted.failures, counted.error_rate) == (3, 0, None)


def test_a_success_ends_the_run_of_failures() -> None:
    failures = [an_outcome(Kind.FAILURE, at) for at in (1, 2)]
    assert tally(failures).failure_run == 2
    assert tally([*failures, an_outcome(Kind.SUCCESS, 3)]).failure_run == 0


@pytest.mark.parametrize(
    ("error_type", "is_told"),
    [
        ("http.TooManyRequests", True),
        ("aiogram.exceptions.TelegramRetryAfter", True),
        ("telegram.error.RetryAfter", True),
        ("RetryAfter", True),
        ("http.BadRequest", False),
        ("TooManyRequests.Other", False),
        (None, False),
    ],
)
def test_what_says_that_calls_come_too_fast_is_known_by_its_name(
    error_type: str | None, is_told: bool
) -> None:
    assert says_too_fast(error_type) is is_told


def test_every_error_that_a_table_reads_so_is_known_by_its_name() -> None:
    names = [name for name, meaning in KNOWN_CLIENTS.meanings.items() if meaning is Category.RATE_LIMITED]
    statuses = [KNOWN_CLIENTS.read(BadAnswer(None, name)).error_type for name in names if name == 429]
    # The client's own limit, of which the service knows nothing.
    classes = [name for name in names if isinstance(name, str) and name != "httpx.PoolTimeout"]
    assert (len(classes), len(statuses)) == (2, 1)
    assert all(map(says_too_fast, classes + statuses))


def test_an_answer_that_calls_come_too_fast_is_a_call_and_no_last_success() -> None:
    well = an_outcome(Kind.SUCCESS, 1)
    too_fast = replace(
        an_outcome(Kind.SUCCESS, 2, error_type="http.TooManyRequests"), verdict=Verdict.NOT_COUNTED
    )
    found = tally([well, too_fast])
    assert (found.calls, found.failures, found.last_success_at) == (2, 0, 1)
    assert found.is_rate_limited


def test_a_bot_is_rate_limited_until_a_call_is_answered_otherwise() -> None:
    too_fast = an_outcome(Kind.SUCCESS, 1, error_type="aiogram.exceptions.TelegramRetryAfter")
    refused = Outcome(Kind.REJECTED, EventId(7, 2), 2, Permit(0, 0), count=1)
    assert tally([too_fast, refused]).is_rate_limited
    assert not tally([too_fast, an_outcome(Kind.SUCCESS, 2)]).is_rate_limited


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, Status.HEALTHY),
        ({"error_rate": None, "mean_ms": None, "average_ms": None}, Status.HEALTHY),
        ({"error_rate": 0.19}, Status.HEALTHY),
        ({"error_rate": 0.2}, Status.DEGRADED),
        ({"error_rate": 0.5}, Status.UNHEALTHY),
        ({"failure_run": 4}, Status.HEALTHY),
        ({"failure_run": 5}, Status.UNHEALTHY),
        ({"mean_ms": 1_000.0}, Status.DEGRADED),
        ({"average_ms": 2_999.0}, Status.HEALTHY),
        ({"average_ms": 3_000.0}, Status.DEGRADED),
        ({"state": CircuitState.OPEN}, Status.UNHEALTHY),
        ({"state": CircuitState.HALF_OPEN}, Status.DEGRADED),
        ({"state": CircuitState.OPEN, "is_suspended": True}, Status.SUSPENDED),
    ],
)
def test_a_bot_is_judged_by_the_first_threshold_that_it_reaches(
    facts: dict[str, object], status: Status
) -> None:
    assert judged(**facts) is status


@pytest.mark.parametrize(
    ("healthy", "bots", "overall"),
    [
        (0, 0, Overall.EXCELLENT),
        (90, 100, Overall.EXCELLENT),
        (89, 100, Overall.GOOD),
        (70, 100, Overall.GOOD),
        (50, 100, Overall.FAIR),
        (49, 100, Overall.POOR),
    ],
)
def test_a_fleet_is_judged_by_its_share_of_healthy_bots(healthy: int, bots: int, overall: Overall) -> None:
    assert judge_fleet(healthy, bots) is overall


def test_the_window_is_of_whole_minutes_with_the_one_that_runs() -> None:
    now = 100 * MINUTE_US + 5
    assert Thresholds(window_minutes=15).window_begin(now) == 86 * MINUTE_US
    assert Thresholds(window_minutes=1).window_begin(now) == 100 * MINUTE_US
