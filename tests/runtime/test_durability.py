"""What has become of an event when its call returns, by the durability that its user chose (DESIGN rules 16 and 17)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from breaker_store import (
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    NotCommittedError,
    Policy,
)
from breaker_store.core.events import Kind, Outcome
from breaker_store.settings import Durability
from tests.runtime.driving import (
    NoAnswerError,
    Way,
    begin,
    by_block,
    by_call,
    fail,
    fail_times,
    succeed,
    trip,
)
from tests.runtime.recorders import (
    LeapingLoop,
    Process,
    RuledLog,
    files,
    numbers_on_disk,
    on_disk,
    pass_time,
    recording,
)

LOOP = LeapingLoop
BEHIND, JOURNALED, COMMITTED = Durability.BEHIND, Durability.JOURNALED, Durability.COMMITTED
QUICK = Policy(failure_threshold=2, timeout_seconds=30, success_threshold=1, ignored_errors=("KeyError",))


async def miss_a_key() -> None:
    raise KeyError("chat")


async def ask_something_odd() -> None:
    with_odd_texts = "a\0b\udc80c\n'\"🙂"
    raise NoAnswerError(with_odd_texts)


def be_committed(process: Process, way: Way = by_call) -> asyncio.Future[object]:
    return asyncio.ensure_future(way(process.breaker, succeed))


async def test_behind_nothing_is_on_disk_while_the_log_takes_it(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, policy=QUICK, drain_seconds=10) as process:
        for _ in range(50):
            await process.call(3)
            await fail_times(process.breaker, 1)
            process.breaker.reset()
            assert files(directory) == []
            await pass_time(0.005)
    assert len(log.stored()) == 250
    assert files(directory) == []


# What happens, and what there is to be read of it.
Happening = Callable[[Process, Way], Awaitable[None]]


async def one_success(process: Process, way: Way) -> None:
    await way(process.breaker, succeed)


async def one_failure(process: Process, way: Way) -> None:
    with pytest.raises(NoAnswerError):
        await way(process.breaker, fail)


async def one_failure_with_odd_texts(process: Process, way: Way) -> None:
    with pytest.raises(NoAnswerError):
        await way(process.breaker, ask_something_odd)


async def one_ignored_error(process: Process, way: Way) -> None:
    with pytest.raises(KeyError):
        await way(process.breaker, miss_a_key)


async def a_trip(process: Process, way: Way) -> None:
    await trip(process.breaker, way)


async def two_refusals(process: Process, way: Way) -> None:
    await trip(process.breaker, way)
    for _ in range(2):
        with pytest.raises(CircuitBreakerOpenError):
            await way(process.breaker, succeed)


async def a_recovery(process: Process, way: Way) -> None:
    await trip(process.breaker, way)
    await pass_time(30)
    await way(process.breaker, succeed)


async def a_reset(process: Process, _way: Way) -> None:
    process.breaker.reset(actor="ann", reason="it works again")


async def a_policy(process: Process, _way: Way) -> None:
    process.breaker.set_policy(Policy(failure_threshold=7))


TRIP = [Kind.FAILURE, Kind.FAILURE, Kind.OPENED]
HAPPENINGS: list[tuple[Happening, list[Kind]]] = [
    (one_success, [Kind.SUCCESS]),
    (one_failure, [Kind.FAILURE]),
    (one_failure_with_odd_texts, [Kind.FAILURE]),
    (one_ignored_error, [Kind.SUCCESS]),
    (a_trip, TRIP),
    (two_refusals, [*TRIP, Kind.REJECTED, Kind.REJECTED]),
    (a_recovery, [*TRIP, Kind.HALF_OPENED, Kind.SUCCESS, Kind.CLOSED]),
    (a_reset, [Kind.RESET]),
    (a_policy, [Kind.POLICY_CHANGED]),
]
by_happening = pytest.mark.parametrize(
    ("happening", "kinds"), HAPPENINGS, ids=[happening.__name__ for happening, _ in HAPPENINGS]
)


@by_happening
async def test_journaled_what_has_happened_is_on_disk_when_the_call_returns(
    log: RuledLog, directory: Path, way: Way, happening: Happening, kinds: list[Kind]
) -> None:
    async with recording(log, directory, JOURNALED, policy=QUICK, drain_seconds=10) as process:
        log.hold()
        await happening(process, way)
        found = on_disk(directory)
        assert [event.kind for event in found] == kinds
        await log.release()
    times = {event.event_id: event.at for event in found}
    assert [times[event.event_id] for event in log.stored()] == [event.at for event in log.stored()]
    assert sum(event.count or 1 for event in log.stored() if isinstance(event, Outcome)) == sum(
        event.count or 1 for event in found if isinstance(event, Outcome)
    )


@by_happening
async def test_committed_the_log_has_what_has_happened_when_the_call_returns(
    log: RuledLog, way: Way, happening: Happening, kinds: list[Kind]
) -> None:
    """A refusal is not waited for, nor is an operator's reset; the call after it waits for both."""
    async with recording(log, durability=COMMITTED, policy=QUICK) as process:
        await happening(process, way)
        if happening in {two_refusals, a_reset, a_policy}:
            await process.recorder.flush()
        stored = log.stored()
        assert {event.kind for event in stored} == set(kinds)
        assert sum(getattr(event, "count", None) or 1 for event in stored) == len(kinds)


@pytest.mark.parametrize(
    ("limit_bytes", "rounds"), [(10_000, 50), (100_000, 100), (1_000_000, 300), (2_000_000, 100)]
)
@pytest.mark.parametrize("durability", [JOURNALED, COMMITTED])
async def test_what_is_stored_is_never_in_the_way_of_what_is_not(
    log: RuledLog, directory: Path, limit_bytes: int, rounds: int, durability: Durability
) -> None:
    """However small the spool is: the log takes everything."""
    async with recording(log, directory, durability, limit_bytes=limit_bytes) as process:
        journaled = process.breaker.with_durability("journaled")
        for _ in range(rounds):
            for _ in range(100):
                await journaled.call(succeed)
            await process.recorder.flush()
        assert process.recorder.stats().lost == 0
        assert len(log.asked) == rounds
    assert files(directory) == []


async def test_a_committed_call_returns_only_when_the_log_has_its_event(log: RuledLog, way: Way) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        calling = be_committed(process, way)
        await pass_time(5)
        assert not calling.done()
        await log.release()
        await calling
        assert log.numbers() == [1]


async def test_a_committed_failure_waits_as_well_and_keeps_its_own_error(log: RuledLog, way: Way) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        calling = asyncio.ensure_future(way(process.breaker, fail))
        await pass_time(5)
        assert not calling.done()
        await log.release()
        with pytest.raises(NoAnswerError, match="no answer") as error:
            await calling
        assert not hasattr(error.value, "__notes__")
        assert log.numbers() == [1]


async def test_concurrent_committed_calls_share_their_commits(log: RuledLog) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        calls = [be_committed(process)]
        await log.be_asked()
        calls += [be_committed(process) for _ in range(63)]
        await pass_time(0.1)
        await log.release()
        await asyncio.gather(*calls)
        assert [sealed.batch.event_count for sealed in log.asked] == [1, 63]


async def test_a_committed_call_does_not_wait_for_what_comes_after_it(log: RuledLog) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        first = be_committed(process)
        await log.be_asked()
        second = be_committed(process)
        await log.release(1)
        await first
        await log.be_asked(2)
        await pass_time(1)
        assert not second.done()
        await log.release()
        await second


async def test_a_committed_refusal_is_journaled_and_does_not_wait(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, COMMITTED, policy=QUICK) as process:
        await trip(process.breaker)
        log.hold()
        async with asyncio.timeout(0):
            with pytest.raises(CircuitBreakerOpenError):
                await process.breaker.call(succeed)
        assert on_disk(directory)[-1].kind is Kind.REJECTED


@pytest.mark.parametrize("ending", [succeed, fail])
async def test_a_committed_call_is_journaled_while_it_waits(
    log: RuledLog, directory: Path, way: Way, ending: Callable[[], Awaitable[str]]
) -> None:
    async with recording(log, directory, COMMITTED) as process:
        log.hold()
        calling = asyncio.ensure_future(way(process.breaker, ending))
        await log.be_asked()
        assert numbers_on_disk(directory) == [1]
        await log.release()
        await asyncio.gather(calling, return_exceptions=True)


async def test_a_committed_reset_is_journaled_and_does_not_wait(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, COMMITTED) as process:
        log.hold()
        process.breaker.reset()
        assert [event.kind for event in on_disk(directory)] == [Kind.RESET]


async def test_a_call_that_was_cancelled_has_no_event_to_wait_for(log: RuledLog, way: Way) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        await process.breaker.with_durability(BEHIND).call(succeed)
        call = await begin(process.breaker, way)
        async with asyncio.timeout(0):
            await call.cancel()


async def test_a_caller_that_stops_waiting_for_the_commit_takes_nothing_back(log: RuledLog, way: Way) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        impatient, patient = be_committed(process, way), be_committed(process, way)
        await pass_time(1)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        await log.release()
        await patient
        assert log.numbers() == [1, 2]
        assert process.breaker.state.failure_count == 0


@pytest.mark.parametrize("durability", Durability)
async def test_without_a_store_every_durability_is_nothing_to_wait_for(way: Way, durability: str) -> None:
    breaker = CircuitBreakerRegistry().get_breaker(101)
    durable = breaker.with_durability(durability)
    async with asyncio.timeout(0):
        await way(durable, succeed)
        with pytest.raises(NoAnswerError):
            await way(durable, fail)
    assert breaker.state.failure_count == 1


async def test_a_breaker_of_nobody_has_nothing_to_wait_for_either(way: Way) -> None:
    async with asyncio.timeout(0):
        await way(CircuitBreaker().with_durability("committed"), succeed)


# A commit that does not come.


async def test_a_call_that_waits_when_the_store_closes_says_that_it_may_not_be_stored_and_what_it_gave(
    log: RuledLog,
) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        calling = be_committed(process)
        await pass_time(1)
        await process.close(0)
        with pytest.raises(NotCommittedError, match="closed") as error:
            await calling
        assert error.value.result == "sent"


async def test_a_block_that_waits_when_the_store_closes_says_so_as_well(log: RuledLog) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        calling = be_committed(process, by_block)
        await pass_time(1)
        await process.close(0)
        with pytest.raises(NotCommittedError) as error:
            await calling
        assert error.value.result is None


async def test_a_failure_that_waits_when_the_store_closes_keeps_its_own_error_with_a_note(
    log: RuledLog, way: Way
) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.hold()
        calling = asyncio.ensure_future(way(process.breaker, fail))
        await pass_time(1)
        await process.close(0)
        with pytest.raises(NoAnswerError) as error:
            await calling
        assert ["closed" in note for note in error.value.__notes__] == [True]


async def test_a_committed_call_that_ends_after_the_store_was_closed_says_that_it_is_not_stored(
    log: RuledLog, way: Way
) -> None:
    async with recording(log) as process:
        call = await begin(process.breaker.with_durability("committed"), way)  # type: ignore[arg-type]
        await process.close()
        with pytest.raises(NotCommittedError, match="closed"):
            await call.succeed()
        assert log.stored() == []


async def test_an_event_for_which_the_queue_has_no_room_is_not_waited_for(log: RuledLog, way: Way) -> None:
    async with recording(log, durability=COMMITTED, queue_limit=4) as process:
        log.hold()
        for _ in range(8):
            await process.breaker.with_durability("behind").call(succeed)
        async with asyncio.timeout(0):
            with pytest.raises(NotCommittedError, match="no room"):
                await way(process.breaker, succeed)


async def test_a_failure_for_which_the_queue_has_no_room_keeps_its_own_error_with_a_note(
    log: RuledLog, way: Way
) -> None:
    async with recording(log, queue_limit=4) as process:
        log.hold()
        for user_id in range(8):
            await fail_times(process.registry.get_breaker(user_id), 1)
        async with asyncio.timeout(0):
            with pytest.raises(NoAnswerError) as error:
                await way(process.breaker.with_durability("committed"), fail)
        assert ["no room" in note for note in error.value.__notes__] == [True]


async def test_an_event_for_which_the_spool_has_no_room_is_not_waited_for(
    log: RuledLog, directory: Path, way: Way
) -> None:
    async with recording(log, directory, limit_bytes=20_000) as process:
        log.hold()
        await process.call(300, seconds_apart=0.002)
        assert process.spool is not None
        assert process.spool.full_share > 0.8
        async with asyncio.timeout(0.03):
            with pytest.raises(NotCommittedError) as error:
                await way(process.breaker.with_durability("committed"), succeed)
        assert error.value.result == (None if way is by_block else "sent")
        await log.release()
        await process.recorder.flush()
        assert 301 not in log.numbers()
        assert process.recorder.stats().lost == 301 - len(log.numbers())


async def test_an_event_that_the_log_refuses_is_not_committed_and_the_others_are(log: RuledLog) -> None:
    async with recording(log, durability=COMMITTED) as process:
        await process.call(1)
        log.hold()
        log.refuses = lambda batch: batch.first_seq <= 4 <= batch.last_seq
        calls = [be_committed(process) for _ in range(6)]
        await pass_time(0.1)
        await log.release()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(end, NotCommittedError) for end in ends] == [number == 4 for number in range(2, 8)]
        assert ends[2].result == "sent"  # type: ignore[union-attr]
        assert log.numbers() == [1, 2, 3, 5, 6, 7]


async def test_a_failure_that_the_log_refuses_keeps_its_own_error_with_a_note(log: RuledLog) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.refuses = lambda batch: batch.event_count > 0
        with pytest.raises(NoAnswerError) as error:
            await process.breaker.call(fail)
        assert len(error.value.__notes__) == 1


async def test_an_event_that_the_log_takes_without_its_texts_is_committed(log: RuledLog) -> None:
    async with recording(log, durability=COMMITTED) as process:
        log.refuses = lambda batch: any(row[-1] == "no answer" for row in batch.outcomes)
        with pytest.raises(NoAnswerError) as error:
            await process.breaker.call(fail)
        assert not hasattr(error.value, "__notes__")
        assert log.numbers() == [1]


async def test_committed_waits_out_an_outage_by_way_of_the_spool(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, COMMITTED, policy=QUICK) as process:
        log.is_away = True
        calls = [be_committed(process) for _ in range(5)]
        await pass_time(20)
        assert [call.done() for call in calls] == [False] * 5
        assert numbers_on_disk(directory) == [1, 2, 3, 4, 5]
        assert process.breaker.state.state is CircuitState.CLOSED
        log.is_away = False
        await asyncio.gather(*calls)
        assert log.numbers() == [1, 2, 3, 4, 5]
