"""Which endings are failures, which are none, and that the caller gets what was raised (DESIGN rules 4 and 15)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import traceback

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, Policy
from breaker_store.core.events import Kind, Outcome
from tests.runtime.driving import NoAnswerError, Recording, Way, by_call, fail_times, succeed, trip


class BadRequestError(NoAnswerError):
    pass


class OwnBaseException(BaseException):
    pass


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class OddlyPrintedError(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307 - that is what is odd


async def end_with(way: Way, breaker: CircuitBreaker, error: BaseException) -> BaseException:
    """Have a call raise this, and give what reaches the caller."""

    async def func() -> None:
        raise error

    try:
        await way(breaker, func)
    except BaseException as raised:
        return raised
    raise AssertionError("nothing was raised")


async def record_of(way: Way, error: BaseException, policy: Policy | None = None) -> Outcome:
    recording = Recording(policy)
    await end_with(way, recording.breaker, error)
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    return event


NO_OUTCOMES = [
    KeyboardInterrupt(),
    SystemExit(1),
    GeneratorExit(),
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    OwnBaseException(),
    BaseExceptionGroup("a group with one that ends the process", [KeyboardInterrupt(), ValueError()]),
]


@pytest.mark.parametrize("error", NO_OUTCOMES, ids=[type(error).__name__ for error in NO_OUTCOMES])
async def test_what_says_nothing_of_the_service_is_no_outcome(way: Way, error: BaseException) -> None:
    recording = Recording()
    await fail_times(recording.breaker, 4)
    recording.events()
    assert await end_with(way, recording.breaker, error) is error
    assert (recording.events(), recording.breaker.state.failure_count) == ([], 4)


FAILURES = [
    ValueError("odd"),
    TimeoutError(),
    OSError(111, "refused"),
    StopAsyncIteration(),
    TypeError("raised by the function itself"),
    AssertionError(),
    ExceptionGroup("both", [ValueError("a"), OSError("b")]),
    UnprintableError(),
    OddlyPrintedError(),
]


@pytest.mark.parametrize("error", FAILURES, ids=[type(error).__name__ for error in FAILURES])
async def test_every_other_exception_is_a_failure_and_reaches_the_caller_as_the_same_object(
    way: Way, error: Exception
) -> None:
    recording = Recording()
    raised = await end_with(way, recording.breaker, error)
    assert raised is error
    assert (recording.kinds(), recording.breaker.state.failure_count) == ([Kind.FAILURE], 1)


async def test_what_was_raised_keeps_its_cause_context_and_notes(breaker: CircuitBreaker, way: Way) -> None:
    cause, context, error = OSError("cause"), KeyError("context"), ValueError("error")
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, False
    error.add_note("a note")
    raised = await end_with(way, breaker, error)
    assert (raised.__cause__, raised.__context__, raised.__suppress_context__) == (cause, context, False)
    assert raised.__notes__ == ["a note"]


async def test_an_error_without_a_context_gets_none(breaker: CircuitBreaker, way: Way) -> None:
    raised = await end_with(way, breaker, UnprintableError())
    assert (raised.__cause__, raised.__context__) == (None, None)


async def test_an_error_raised_while_another_is_handled_keeps_that_one_as_its_context(
    breaker: CircuitBreaker, way: Way
) -> None:
    first = KeyError("first")
    try:
        raise first
    except KeyError:
        raised = await end_with(way, breaker, ValueError("second"))
    assert raised.__context__ is first


async def test_a_traceback_shows_the_place_where_the_function_failed(
    breaker: CircuitBreaker, way: Way
) -> None:
    raised = await end_with(way, breaker, ValueError())
    assert traceback.extract_tb(raised.__traceback__)[-1].line == "raise error"


async def test_a_refusal_by_another_breaker_inside_the_call_is_no_outcome(
    breaker: CircuitBreaker, recording: Recording, way: Way
) -> None:
    await trip(breaker)
    with pytest.raises(CircuitBreakerOpenError):
        await way(recording.breaker, lambda: breaker.call(succeed))
    assert recording.events() == []


async def test_ignored_errors_are_successes_that_carry_the_error(way: Way) -> None:
    policy = Policy(ignored_errors=(BadRequestError,))
    outcome = await record_of(way, BadRequestError("chat not found"), policy)
    assert (outcome.kind, outcome.error_message) == (Kind.SUCCESS, "chat not found")
    assert outcome.error_type == f"{BadRequestError.__module__}.BadRequestError"


async def test_an_ignored_error_ends_a_run_of_failures(recording: Recording, way: Way) -> None:
    recording.breaker.set_policy(Policy(ignored_errors=(BadRequestError,)))
    await fail_times(recording.breaker, 4)
    await end_with(way, recording.breaker, BadRequestError())
    assert recording.breaker.state.failure_count == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoAnswerError(), Kind.FAILURE),
        (OSError(), Kind.FAILURE),
        (ConnectionResetError(), Kind.FAILURE),
        (BadRequestError(), Kind.SUCCESS),
        (ValueError(), Kind.SUCCESS),
    ],
)
async def test_only_counted_errors_and_their_children_that_are_not_ignored_are_failures(
    way: Way, error: Exception, kind: Kind
) -> None:
    policy = Policy(counted_errors=(NoAnswerError, "OSError"), ignored_errors=(BadRequestError,))
    assert (await record_of(way, error, policy)).kind is kind


async def test_cancellation_is_no_outcome_though_a_policy_names_it(way: Way) -> None:
    recording = Recording(Policy(counted_errors=(asyncio.CancelledError, BaseException)))
    await end_with(way, recording.breaker, asyncio.CancelledError())
    assert recording.events() == []


@pytest.mark.parametrize("error", [UnprintableError(), OddlyPrintedError()])
async def test_an_error_that_cannot_be_printed_is_recorded_without_its_text(
    way: Way, error: Exception
) -> None:
    assert (await record_of(way, error)).error_message == "(the error could not be printed)"


@pytest.mark.parametrize(
    ("text", "recorded"),
    [
        ("a\x00b\ud800c", "abc"),
        ("POST https://api.telegram.org/bot123456789:AAabcdefghijklmnopqrstuvwxyz012345678/sendMessage failed",
         "POST https://api.telegram.org/bot[hidden]/sendMessage failed"),
        ("postgresql://bot:hunter2@db/x is away", "postgresql://bot:[hidden]@db/x is away"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: [hidden]"),
    ],
)  # fmt: skip
async def test_what_is_recorded_of_an_error_is_clean_and_the_error_itself_is_not_touched(
    way: Way, text: str, recorded: str
) -> None:
    recording = Recording()
    raised = await end_with(way, recording.breaker, ValueError(text))
    assert str(raised) == text
    (event,) = recording.events()
    assert event.error_message == recorded
    assert recording.breaker.state.last_failure.error_message == recorded


async def test_a_huge_message_is_cut(way: Way) -> None:
    outcome = await record_of(way, ValueError("x" * 3_000_000))
    assert outcome.error_message == "x" * 1_999 + "…"


async def test_an_error_type_whose_name_cannot_be_stored_is_recorded_under_what_is_left_of_it(
    way: Way,
) -> None:
    odd = type("Odd" + "d" * 300, (Exception,), {"__module__": "bot\x00\ud800"})
    assert (await record_of(way, odd())).error_type == "bot.Odd" + "d" * 192 + "…"


async def test_a_refusal_tells_the_last_failure_without_its_secrets(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        await end_with(by_call, breaker, ValueError("token=abcdef123"))
    with pytest.raises(CircuitBreakerOpenError) as refused:
        await breaker.call(succeed)
    assert str(refused.value).endswith("last failure: ValueError: token=[hidden]")
