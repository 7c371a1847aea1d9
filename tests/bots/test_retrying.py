"""What is tried again, how often, after what pauses; and what ends it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest

from breaker_store import CircuitBreakerOpenError, CircuitState, Durability, NotCommittedError, Policy
from breaker_store.bots import NO_RETRIES, RetryBudget, RetryPolicy
from breaker_store.core.events import Kind
from breaker_store.core.failures import Category, ErrorReading
from breaker_store.testing import in_virtual_time
from tests.bots.test_instance import FAILURES
from tests.bots.world import BlockedByUserError, RevokedError, Service, TooFastError, World, plenty

PATIENT = Policy(failure_threshold=1_000)


def ready(retries: RetryPolicy, **options: object) -> World:
    """Make a world in which only `retries` bounds the attempts."""
    world = World(policy=PATIENT, failures=FAILURES, retries=retries, **options)
    world.fleet.budget = plenty(world.clock)
    return world


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ConnectionResetError, 4),
        (TimeoutError, 4),
        (lambda: TooFastError(0), 4),
        (RuntimeError, 2),
        (BlockedByUserError, 1),
        (RevokedError, 1),
    ],
)
def test_how_often_a_call_is_tried_depends_on_what_its_error_means(error: type, attempts: int) -> None:
    @in_virtual_time
    async def try_it() -> None:
        world, service = ready(RetryPolicy()), Service(*(error() for _ in range(10)))
        raised = [*service.answers]
        with pytest.raises(Exception) as told:
            await world.bot().rate_limited_request(service.send_message)
        assert service.calls == attempts
        assert told.value is raised[attempts - 1]
        assert world.bot().get_health().retries == attempts - 1

    try_it()


@in_virtual_time
async def test_each_attempt_is_an_event_with_its_number() -> None:
    world, service = ready(RetryPolicy()), Service(ConnectionError(), TimeoutError())
    assert await world.bot().rate_limited_request(service.send_message) == "sent hi to 1"
    assert [(each.kind, each.attempt, each.error_type) for each in world.outcomes()] == [
        (Kind.FAILURE, None, "ConnectionError"),
        (Kind.FAILURE, 2, "TimeoutError"),
        (Kind.SUCCESS, 3, None),
    ]


@in_virtual_time
async def test_attempts_stop_at_once_when_the_breaker_opens() -> None:
    world = World(policy=Policy(failure_threshold=2), failures=FAILURES, retries=RetryPolicy(attempts=9))
    service = Service(*(ConnectionError() for _ in range(9)))
    with pytest.raises(ConnectionError):
        await world.bot().rate_limited_request(service.send_message)
    assert (service.calls, world.bot().breaker.state.state) == (2, CircuitState.OPEN)


@in_virtual_time
async def test_a_pause_before_another_attempt_ends_when_another_call_opens_the_breaker() -> None:
    world, last = ready(RetryPolicy()), TooFastError(50)
    limited, revoked = Service(last), Service(RevokedError())
    revoked.takes_seconds = 2
    bot, began = world.bot(), asyncio.get_running_loop().time()
    calls = [
        asyncio.ensure_future(bot.rate_limited_request(each.send_message)) for each in (revoked, limited)
    ]
    await asyncio.wait(calls)
    assert calls[1].exception() is last
    assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.01)
    assert limited.calls == 1


@in_virtual_time
async def test_no_attempt_begins_after_the_total_time() -> None:
    world = ready(RetryPolicy(attempts=1_000, longest_pause_seconds=1, total_seconds=10))
    service = Service(*(ConnectionError() for _ in range(1_000)))
    service.takes_seconds = 1
    with pytest.raises(ConnectionError):
        await world.bot().rate_limited_request(service.send_message)
    assert 5 < service.calls <= 11
    assert service.called_at[-1] - service.called_at[0] <= 10


@in_virtual_time
async def test_the_wait_that_the_service_asks_for_is_obeyed() -> None:
    world, service = ready(RetryPolicy()), Service(TooFastError(5), TooFastError(20))
    await world.bot().rate_limited_request(service.send_message)
    pauses = [
        later - earlier for earlier, later in zip(service.called_at, service.called_at[1:], strict=False)
    ]
    assert 5 <= pauses[0] <= 5.5
    assert 20 <= pauses[1] <= 21


@in_virtual_time
async def test_retries_over_a_whole_fleet_are_bounded_by_its_budget() -> None:
    world = World(policy=PATIENT, failures=FAILURES, retries=RetryPolicy(first_pause_seconds=0))
    world.fleet.budget = RetryBudget(world.clock.monotonic_ns, share=0.1, per_second=0, most=10)
    services = [Service(*(ConnectionError() for _ in range(10))) for _ in range(500)]
    results = await asyncio.gather(
        *(
            world.bot(user_id).rate_limited_request(service.send_message)
            for user_id, service in enumerate(services, 1)
        ),
        return_exceptions=True,
    )
    assert all(isinstance(each, ConnectionError) for each in results)
    retries = sum(service.calls for service in services) - 500
    assert 0 < retries <= 500 * 0.1 + 10


@in_virtual_time
async def test_a_call_that_must_not_be_repeated_is_not() -> None:
    world, service = ready(RetryPolicy()), Service(ConnectionError())
    with pytest.raises(ConnectionError):
        await world.bot().rate_limited_request(service.send_message, repeatable=False)
    assert service.calls == 1


@in_virtual_time
async def test_a_call_that_went_well_and_may_not_be_stored_is_not_repeated() -> None:
    world, service = ready(RetryPolicy()), Service()

    async def send(call: object) -> str:
        return await service.send_message()

    world.journal.durability = Durability.COMMITTED
    world.journal.limit = 0
    with pytest.raises(NotCommittedError) as told:
        await world.bot().protect(send)
    assert (told.value.result, service.calls) == ("sent hi to 1", 1)


@pytest.mark.parametrize("kind", [BlockedByUserError, ConnectionError])
def test_what_a_failed_call_leaves_is_freed_without_the_garbage_collector(kind: type[Exception]) -> None:
    @in_virtual_time
    async def fail() -> None:
        world, service = ready(RetryPolicy()), Service(*(kind() for _ in range(8)))
        for _ in range(2):
            gc.collect()
            gc.disable()
            try:
                with suppress(kind):
                    await world.bot().rate_limited_request(service.send_message)
                world.journal.pending.clear()
                left = gc.collect()
            finally:
                gc.enable()
        # Of the second call: the first one makes what lasts.
        assert left == 0

    fail()


@in_virtual_time
async def test_a_fleet_may_do_without_retries() -> None:
    world, service = ready(NO_RETRIES), Service(ConnectionError())
    with pytest.raises(ConnectionError):
        await world.bot().rate_limited_request(service.send_message)
    assert service.calls == 1


@in_virtual_time
async def test_a_call_cancelled_in_its_pause_is_not_tried_again() -> None:
    world, service = ready(RetryPolicy()), Service(TooFastError(10))
    call = asyncio.ensure_future(world.bot().rate_limited_request(service.send_message))
    await asyncio.sleep(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(60)
    assert (service.calls, world.bot().get_health().waiting) == (1, 0)


@in_virtual_time
async def test_a_breaker_opened_by_hand_in_the_pause_leaves_the_caller_the_real_error() -> None:
    world, service = ready(RetryPolicy()), Service(TooFastError(10))
    bot = world.bot()
    call = asyncio.ensure_future(bot.rate_limited_request(service.send_message))
    await asyncio.sleep(1)
    bot.breaker.suspend(reason="unpaid")
    with pytest.raises(TooFastError):
        await call
    assert service.calls == 1
    with pytest.raises(CircuitBreakerOpenError):
        await bot.rate_limited_request(service.send_message)


@pytest.mark.parametrize("attempt", [1, 2, 10, 10_000])
def test_a_pause_is_never_longer_than_the_longest_nor_below_zero(attempt: int) -> None:
    policy = RetryPolicy(first_pause_seconds=0.5, longest_pause_seconds=30)
    drawn = [policy.pause_seconds(attempt, ErrorReading(Category.TRANSIENT)) for _ in range(200)]
    bound = min(30, 0.5 * 2 ** min(attempt - 1, 60))
    assert 0 <= min(drawn) <= max(drawn) <= bound
    assert max(drawn) > bound / 2


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts_at_unknown": 0},
        {"first_pause_seconds": -1},
        {"longest_pause_seconds": float("nan")},
        {"total_seconds": float("inf")},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"one attempt|pauses"):
        RetryPolicy(**settings)  # type: ignore[arg-type]


@in_virtual_time
async def test_an_error_that_is_not_tried_again_for_the_breakers_sake_keeps_its_cause() -> None:
    world = ready(RetryPolicy())
    bot, cause = world.bot(), OSError("no route")

    async def send() -> None:
        raise TooFastError(10) from cause

    call = asyncio.ensure_future(bot.rate_limited_request(send))
    await asyncio.sleep(1)
    bot.breaker.suspend()
    with pytest.raises(TooFastError) as told:
        await call
    assert told.value.__cause__ is cause


@in_virtual_time
async def test_attempts_stop_when_one_is_refused_since_another_call_is_the_probe() -> None:
    world, limited, probe = ready(RetryPolicy()), Service(TooFastError(10)), Service()
    bot = world.bot()
    bot.breaker.force_open(for_seconds=1)
    await asyncio.sleep(1)
    call = asyncio.ensure_future(bot.rate_limited_request(limited.send_message))
    await asyncio.sleep(1)
    probe.takes_seconds = 60
    other = asyncio.ensure_future(bot.rate_limited_request(probe.send_message))
    with pytest.raises(TooFastError):
        await call
    assert (limited.calls, bot.get_health().refusals, other.done()) == (1, 1, False)
    await other


@in_virtual_time
async def test_no_attempt_begins_after_the_total_time_because_it_waited_for_a_limit() -> None:
    world = ready(RetryPolicy(total_seconds=10))
    bot, service = world.bot(requests_per_second=1), Service(ConnectionError())
    first, *others = (
        asyncio.ensure_future(bot.rate_limited_request(service.send_message)) for _ in range(60)
    )
    with pytest.raises(ConnectionError):
        await first
    assert asyncio.get_running_loop().time() == pytest.approx(1_010)
    await asyncio.wait(others)
    assert [each.attempt for each in world.outcomes() if each.attempt is not None] == []


@in_virtual_time
async def test_a_pause_goes_on_when_another_call_is_told_to_wait_for_less() -> None:
    world, slow = ready(RetryPolicy()), Service(TooFastError(1))
    bot, limited = world.bot(), Service(TooFastError(20))
    slow.takes_seconds = 2
    calls = [bot.rate_limited_request(each.send_message) for each in (slow, limited)]
    await asyncio.gather(*calls)
    assert limited.called_at[1] - limited.called_at[0] >= 20


@in_virtual_time
async def test_a_bot_whose_calls_always_fail_leaves_the_others_their_retries() -> None:
    world, bad = World(failures=FAILURES), Service()
    bad.takes_seconds = 0.05

    async def flood() -> None:
        while True:
            bad.answers.append(TooFastError(0))
            with suppress(TooFastError):
                await world.bot(1).rate_limited_request(bad.send_message)

    floods = [asyncio.ensure_future(flood()) for _ in range(30)]
    await asyncio.sleep(60)
    for user_id in range(2, 52):
        await world.bot(user_id).rate_limited_request(Service(ConnectionError()).send_message)
    for each in floods:
        each.cancel()
    assert world.bot(1).get_health().retries > 300


@in_virtual_time
async def test_a_bot_that_is_alone_in_having_trouble_gets_nearly_all_retries() -> None:
    world = ready(RetryPolicy(first_pause_seconds=0, attempts=2))
    world.fleet.budget = RetryBudget(world.clock.monotonic_ns, share=0, per_second=5)
    bot, service = world.bot(), Service(*(ConnectionError() for _ in range(10_000)))
    for _ in range(600):
        with suppress(ConnectionError):
            await bot.rate_limited_request(service.send_message)
        await asyncio.sleep(0.1)
    assert 0.8 * 60 * 5 <= bot.get_health().retries <= 60 * 5 + 10
