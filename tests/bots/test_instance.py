"""A call of a bot: breaker, limits, breaker again, function."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Callable

import pytest

from breaker_store import (
    BotSuspendedError,
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitState,
    NestedCallError,
    Policy,
)
from breaker_store.bots import NO_RETRIES, TELEGRAM_CHATS, RateLimitedError, UserBotCredentials
from breaker_store.core.events import Kind, Outcome, Verdict
from breaker_store.core.state import BreakerState
from breaker_store.failures import KNOWN_CLIENTS, Category
from breaker_store.runtime.protected_call import ProtectedCall
from breaker_store.testing import in_virtual_time
from tests.bots.world import QUICK, TOKEN, BlockedByUserError, RevokedError, Service, TooFastError, World
from tests.runtime.driving import USER

FAILURES = KNOWN_CLIENTS | {
    TooFastError: Category.RATE_LIMITED,
    RevokedError: Category.PERMANENT,
    BlockedByUserError: Category.DECLINED,
}


@in_virtual_time
async def test_a_call_gives_what_the_function_gives_and_is_recorded_by_its_name() -> None:
    world, service = World(), Service()
    bot = world.bot()
    assert await bot.rate_limited_request(service.send_message, 7, text="hello") == "sent hello to 7"
    assert await bot.rate_limited_request(service.send_message, operation="sendMessage") == "sent hi to 1"
    assert [(each.kind, each.operation, each.attempt) for each in world.outcomes()] == [
        (Kind.SUCCESS, "send_message", None),
        (Kind.SUCCESS, "sendMessage", None),
    ]


@in_virtual_time
async def test_an_error_reaches_the_caller_as_it_is() -> None:
    world, error = World(), ValueError("chat_id is empty")
    with pytest.raises(ValueError, match="chat_id") as raised:
        await world.bot().rate_limited_request(Service(error).send_message, repeatable=False)
    assert raised.value is error


@in_virtual_time
async def test_a_refused_call_is_not_called_waits_for_nothing_and_takes_no_permit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, service = World(), Service()
    bot = world.bot(requests_per_second=1, concurrency=1)
    bot.breaker.force_open()
    before = asyncio.get_running_loop().time()
    with caplog.at_level(logging.DEBUG, logger="breaker_store"):
        for _ in range(100):
            with pytest.raises(CircuitBreakerOpenError):
                await bot.rate_limited_request(service.send_message)
    assert (service.calls, caplog.records) == (0, [])
    bot.breaker.reset()
    await bot.rate_limited_request(service.send_message)
    assert asyncio.get_running_loop().time() == pytest.approx(before)


@in_virtual_time
async def test_a_refused_call_is_no_failure_for_health() -> None:
    world, service = World(), Service()
    bot = world.bot()
    await bot.rate_limited_request(service.send_message)
    bot.breaker.suspend(reason="unpaid")
    with pytest.raises(BotSuspendedError):
        await bot.rate_limited_request(service.send_message)
    bot.breaker.resume()
    health = bot.get_health()
    assert (health.status, health.calls, health.failures, health.refusals) == ("healthy", 1, 0, 1)


@in_virtual_time
async def test_whoever_waits_for_a_limit_is_refused_as_soon_as_the_breaker_opens() -> None:
    world, service = World(retries=QUICK, failures=FAILURES), Service(RevokedError())
    service.takes_seconds = 1.0
    bot = world.bot(concurrency=1)
    first = asyncio.ensure_future(bot.rate_limited_request(service.send_message))
    await asyncio.sleep(0.5)
    others = [asyncio.ensure_future(bot.rate_limited_request(service.send_message)) for _ in range(3)]
    await asyncio.wait([first, *others])
    assert isinstance(first.exception(), RevokedError)
    assert [type(each.exception()) for each in others] == [CircuitBreakerOpenError] * 3
    assert service.calls == 1
    assert asyncio.get_running_loop().time() - service.called_at[0] == pytest.approx(1)


@in_virtual_time
async def test_one_revoked_token_costs_one_call() -> None:
    world, service = World(failures=FAILURES), Service(RevokedError("the token was revoked"))
    bot = world.bot()
    with pytest.raises(RevokedError):
        await bot.rate_limited_request(service.send_message)
    with pytest.raises(CircuitBreakerOpenError) as refusal:
        await bot.rate_limited_request(service.send_message)
    assert service.calls == 1
    assert "the token was revoked" in str(refusal.value)


@in_virtual_time
async def test_a_recipient_who_blocked_the_bot_is_no_failure() -> None:
    world, service = World(failures=FAILURES), Service(*(BlockedByUserError() for _ in range(20)))
    bot = world.bot()
    for _ in range(20):
        with pytest.raises(BlockedByUserError):
            await bot.rate_limited_request(service.send_message)
    assert (service.calls, bot.breaker.state.state) == (20, CircuitState.CLOSED)
    assert bot.get_health().failures == 0


@in_virtual_time
async def test_a_coroutine_is_refused_without_a_warning_that_nobody_awaited_it() -> None:
    world, service = World(), Service()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="a function is needed"):
            await world.bot().rate_limited_request(service.send_message())  # type: ignore[arg-type]
        gc.collect()
    assert world.events() == []


@in_virtual_time
async def test_a_function_that_gives_nothing_to_await_is_no_outcome_and_keeps_no_place() -> None:
    world = World()
    bot = world.bot(concurrency=1)
    for _ in range(2):
        with pytest.raises(TypeError, match="can't be awaited"):
            await bot.rate_limited_request(lambda: 1)  # type: ignore[arg-type, return-value]
    assert (world.events(), bot.get_health().under_way) == ([], 0)


@in_virtual_time
async def test_a_cancelled_call_is_no_outcome_and_gives_its_place_back() -> None:
    world, service = World(), Service()
    service.takes_seconds = 10
    bot = world.bot(concurrency=1)
    running = asyncio.ensure_future(bot.rate_limited_request(service.send_message))
    waiting = asyncio.ensure_future(bot.rate_limited_request(service.send_message))
    await asyncio.sleep(1)
    assert (bot.get_health().under_way, bot.get_health().waiting) == (1, 1)
    waiting.cancel()
    running.cancel()
    await asyncio.wait([running, waiting])
    assert (bot.get_health().under_way, bot.get_health().waiting) == (0, 0)
    service.takes_seconds = 0
    assert await bot.rate_limited_request(service.send_message) == "sent hi to 1"
    assert [each.kind for each in world.outcomes()] == [Kind.SUCCESS]


@in_virtual_time
async def test_half_open_lets_one_of_many_through() -> None:
    world, service = World(policy=Policy(timeout_seconds=5)), Service()
    bot = world.bot()
    bot.breaker.force_open(for_seconds=5)
    await asyncio.sleep(5)
    service.takes_seconds = 1
    calls = [asyncio.ensure_future(bot.rate_limited_request(service.send_message)) for _ in range(10)]
    await asyncio.wait(calls)
    assert service.calls == 1
    assert sum(each.exception() is None for each in calls) == 1


@in_virtual_time
async def test_while_the_service_wants_to_be_left_alone_all_calls_wait_for_the_time_it_asked_for() -> None:
    world = World(retries=QUICK, failures=FAILURES)
    bot, service = world.bot(), Service(TooFastError(10))
    limited = asyncio.ensure_future(bot.rate_limited_request(service.send_message))
    await asyncio.sleep(1)
    assert bot.get_health().paused_seconds == pytest.approx(9)
    other = asyncio.ensure_future(bot.rate_limited_request(service.send_message))
    await asyncio.wait([limited, other])
    first, *later = service.called_at
    assert len(later) == 2
    assert min(later) >= first + 10
    assert [(each.kind, each.verdict, each.attempt) for each in world.outcomes()] == [
        (Kind.SUCCESS, Verdict.NOT_COUNTED, None),
        (Kind.SUCCESS, Verdict.COUNTED, None),
        (Kind.SUCCESS, Verdict.COUNTED, 2),
    ]


@in_virtual_time
async def test_a_wait_longer_than_a_call_waits_is_told_at_once() -> None:
    world = World(failures=FAILURES)
    bot, service = world.bot(), Service(TooFastError(3_600))
    with pytest.raises(TooFastError):
        await bot.rate_limited_request(service.send_message)
    with pytest.raises(RateLimitedError) as told:
        await bot.rate_limited_request(service.send_message)
    assert (told.value.user_id, told.value.retry_after) == (USER, pytest.approx(3_600))
    assert (service.calls, bot.breaker.state.state) == (1, CircuitState.CLOSED)


@in_virtual_time
async def test_the_pause_of_one_bot_is_not_anothers() -> None:
    world = World(retries=QUICK, failures=FAILURES)
    with pytest.raises(TooFastError):
        await world.bot(101).rate_limited_request(Service(TooFastError(30)).send_message, repeatable=False)
    before = asyncio.get_running_loop().time()
    await world.bot(102).rate_limited_request(Service().send_message)
    assert asyncio.get_running_loop().time() == pytest.approx(before)


@in_virtual_time
async def test_a_call_that_is_left_open_keeps_its_place_until_it_ends() -> None:
    world = World()
    bot = world.bot(concurrency=1)

    async def open_stream(call: ProtectedCall) -> ProtectedCall:
        call.leave_open()
        return call

    call = await bot.protect(open_stream, operation="getFile")
    second = asyncio.ensure_future(bot.rate_limited_request(Service().send_message))
    await asyncio.sleep(1)
    assert not second.done()
    await call.end()
    await second
    durations = [(each.operation, each.duration_us) for each in world.outcomes()]
    assert durations == [("getFile", 1_000_000), ("send_message", 0)]


@in_virtual_time
async def test_a_policy_of_its_own_is_the_breakers() -> None:
    world = World()
    bot = world.bot(policy=Policy(failure_threshold=1))
    with pytest.raises(ZeroDivisionError):
        await bot.rate_limited_request(Service(ZeroDivisionError()).send_message, repeatable=False)
    assert bot.breaker.state.state is CircuitState.OPEN
    assert world.registry.get_breaker(USER).state.policy_is_own


@in_virtual_time
async def test_the_refusal_of_another_guard_inside_is_passed_on_and_not_tried_again() -> None:
    world = World(retries=QUICK)
    outer, inner = world.bot(101), world.bot(102)
    inner.breaker.force_open()
    with pytest.raises(CircuitBreakerOpenError):
        await outer.rate_limited_request(inner.rate_limited_request, Service().send_message)
    assert not [each for each in world.events() if isinstance(each, Outcome) and each.kind is Kind.FAILURE]


@in_virtual_time
async def test_a_pause_of_years_is_one_of_a_day() -> None:
    world = World(failures=FAILURES)
    with pytest.raises(TooFastError):
        await world.bot().rate_limited_request(Service(TooFastError(1e300)).send_message)
    assert world.bot().get_health().paused_seconds == pytest.approx(86_400)


@in_virtual_time
async def test_a_call_within_a_call_of_the_same_bot_is_refused_and_is_no_outcome() -> None:
    world, service = World(), Service()
    bot = world.bot(concurrency=1)

    async def send_through_an_adapter() -> str:
        return await bot.rate_limited_request(service.send_message)

    with pytest.raises(NestedCallError, match="user 101's bot"):
        await bot.rate_limited_request(send_through_an_adapter)
    assert (service.calls, world.events()) == (0, [])
    assert await bot.rate_limited_request(service.send_message) == "sent hi to 1"


@in_virtual_time
async def test_a_call_within_a_call_of_another_bot_and_one_after_it_go_through() -> None:
    world, service = World(), Service()
    bot, other = world.bot(101), world.bot(102)
    later: list[asyncio.Task[str]] = []

    async def send_later() -> str:
        await asyncio.sleep(1)
        return await bot.rate_limited_request(service.send_message)

    async def send() -> str:
        later.append(asyncio.create_task(send_later()))
        return await other.rate_limited_request(service.send_message)

    assert await bot.rate_limited_request(send) == "sent hi to 1"
    assert await later[0] == "sent hi to 1"


def test_the_token_is_not_in_what_an_instance_prints() -> None:
    @in_virtual_time
    async def look() -> None:
        assert TOKEN not in repr(World().fleet.get_instance(UserBotCredentials(101, TOKEN)))

    look()


@in_virtual_time
async def test_a_function_that_gives_nothing_to_await_is_called_once() -> None:
    calls: list[int] = []
    with pytest.raises(TypeError, match="can't be awaited"):
        await World().bot().rate_limited_request(calls.append, 1)  # type: ignore[arg-type]
    assert calls == [1]


@pytest.mark.parametrize("settings", [{"requests_per_second": 2}, {"concurrency": 1}])
def test_whoever_waits_for_a_limit_waits_on_when_the_service_wants_to_be_left_alone(
    settings: dict[str, int],
) -> None:
    @in_virtual_time
    async def flood() -> None:
        world, service = World(retries=NO_RETRIES, failures=FAILURES), Service(TooFastError(30))
        service.takes_seconds = 0.1
        bot = world.bot(**settings)
        calls = [asyncio.ensure_future(bot.rate_limited_request(service.send_message)) for _ in range(10)]
        await asyncio.wait(calls)
        assert sum(1_000.1 < at < 1_030.1 for at in service.called_at) == 0
        assert service.calls == 10

    flood()


@pytest.mark.parametrize(
    "open_it",
    [
        lambda breaker, _state: breaker.force_open(),
        lambda breaker, state: breaker.adopt(state),  # as when another process has opened it
    ],
)
def test_whoever_waits_for_a_limit_is_refused_as_soon_as_somebody_opens_the_breaker(
    open_it: Callable[[CircuitBreaker, BreakerState], None],
) -> None:
    @in_virtual_time
    async def wait() -> None:
        world, service, opened = World(chats=TELEGRAM_CHATS), Service(), CircuitBreaker()
        opened.force_open()
        bot = world.bot()
        calls = [
            asyncio.ensure_future(bot.rate_limited_request(service.send_message, chat_id=-1))
            for _ in range(30)
        ]
        await asyncio.sleep(0.5)
        open_it(bot.breaker, opened.state)
        await asyncio.wait(calls)
        assert asyncio.get_running_loop().time() == pytest.approx(1_000.5)
        assert [type(each.exception()) for each in calls] == [type(None)] + 29 * [CircuitBreakerOpenError]

    wait()


@in_virtual_time
async def test_a_call_is_freed_without_the_garbage_collector() -> None:
    bot, service = World().bot(), Service()
    gc.collect()
    gc.disable()
    try:
        await bot.rate_limited_request(service.send_message)
        alive = [each for each in gc.get_objects() if isinstance(each, ProtectedCall)]
    finally:
        gc.enable()
    assert alive == []


@in_virtual_time
async def test_another_token_makes_a_bot_no_faster_and_leaves_its_health() -> None:
    world, service = World(retries=NO_RETRIES, failures=FAILURES), Service()
    service.takes_seconds = 5
    calls = [asyncio.ensure_future(world.bot(concurrency=1).rate_limited_request(service.send_message))]
    await asyncio.sleep(1)
    renewed = world.fleet.get_instance(UserBotCredentials(USER, "another", concurrency=1))
    calls.append(asyncio.ensure_future(renewed.rate_limited_request(service.send_message)))
    await asyncio.wait(calls)
    assert service.called_at == pytest.approx([1_000, 1_005])
    assert renewed.get_health().calls == 2


@in_virtual_time
async def test_another_token_does_not_end_the_time_for_which_the_service_wants_to_be_left_alone() -> None:
    world = World(retries=NO_RETRIES, failures=FAILURES)
    with pytest.raises(TooFastError):
        await world.bot().rate_limited_request(Service(TooFastError(30)).send_message)
    renewed = world.fleet.get_instance(UserBotCredentials(USER, "another"))
    assert renewed.get_health().paused_seconds == pytest.approx(30)
