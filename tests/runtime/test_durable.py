"""A breaker with a durability of its own, for the calls that need more of it than the others, or less."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from breaker_store import CircuitBreaker, ConfigurationError
from breaker_store.core.events import Outcome
from breaker_store.settings import Durability
from tests.runtime.driving import Way, succeed
from tests.runtime.recorders import LeapingLoop, RuledLog, files, numbers_on_disk, pass_time, recording

LOOP = LeapingLoop
BEHIND, JOURNALED, COMMITTED = Durability.BEHIND, Durability.JOURNALED, Durability.COMMITTED


@pytest.mark.parametrize("of_the_store", [BEHIND, JOURNALED])
async def test_a_call_may_wait_though_the_stores_calls_do_not(
    log: RuledLog, directory: Path, way: Way, of_the_store: Durability
) -> None:
    async with recording(log, directory, of_the_store) as process:
        log.hold()
        await process.call(2)
        calling = asyncio.ensure_future(way(process.breaker.with_durability("committed"), succeed))
        await pass_time(5)
        assert not calling.done()
        await log.release()
        await calling
        assert log.numbers() == [1, 2, 3]


@pytest.mark.parametrize("weaker", [BEHIND, JOURNALED])
async def test_a_call_need_not_wait_though_the_stores_calls_do(
    log: RuledLog, directory: Path, way: Way, weaker: Durability
) -> None:
    async with recording(log, directory, COMMITTED) as process:
        log.hold()
        async with asyncio.timeout(0):
            await way(process.breaker.with_durability(weaker), succeed)
        assert numbers_on_disk(directory) == ([1] if weaker is JOURNALED else [])


async def test_a_call_may_be_journaled_though_the_stores_are_not(
    log: RuledLog, directory: Path, way: Way
) -> None:
    """What waits before it is written as well: a file without the first of two would tell of damage."""
    async with recording(log, directory) as process:
        log.hold()
        await process.call(3)
        assert files(directory) == []
        await way(process.breaker.with_durability("journaled"), succeed)
        assert numbers_on_disk(directory) == [1, 2, 3, 4]
        await process.call(1)
        assert numbers_on_disk(directory) == [1, 2, 3, 4]


async def test_a_call_may_be_less_than_journaled_until_the_next_that_is(
    log: RuledLog, directory: Path, way: Way
) -> None:
    async with recording(log, directory, JOURNALED) as process:
        log.hold()
        await way(process.breaker.with_durability("behind"), succeed)
        assert files(directory) == []
        await way(process.breaker, succeed)
        assert numbers_on_disk(directory) == [1, 2]


async def test_blocks_of_different_durability_may_be_nested(log: RuledLog) -> None:
    async with recording(log) as process:
        log.hold()
        inner_is_done = asyncio.Event()

        async def nest() -> None:
            async with process.breaker.with_durability("committed"):
                async with process.breaker.with_durability("behind"), process.breaker:
                    pass
                inner_is_done.set()

        nesting = asyncio.ensure_future(nest())
        await inner_is_done.wait()
        await pass_time(5)
        assert not nesting.done()
        await log.release()
        await nesting
        assert log.numbers() == [1, 2, 3]


async def test_a_block_gives_the_breaker_itself(log: RuledLog) -> None:
    async with recording(log) as process, process.breaker.with_durability("committed") as entered:
        assert entered is process.breaker


async def test_a_decorated_function_keeps_its_name_and_its_arguments(log: RuledLog) -> None:
    async with recording(log) as process:

        @process.breaker.with_durability("committed")
        async def send(chat: int, *, text: str) -> str:
            return f"{chat}: {text}"

        assert send.__name__ == "send"
        assert await send(7, text="hello") == "7: hello"
        (event,) = log.stored()
        assert isinstance(event, Outcome)
        assert event.operation == "send"


async def test_journaled_needs_a_spool(log: RuledLog) -> None:
    async with recording(log) as process:
        with pytest.raises(ConfigurationError, match="spool_dir"):
            process.breaker.with_durability("journaled")


@pytest.mark.parametrize("name", ["", "commited", "COMMITTED", "behind "])
async def test_a_durability_that_does_not_exist_is_an_error_that_names_those_that_do(name: str) -> None:
    with pytest.raises(ConfigurationError, match="behind, journaled, committed"):
        CircuitBreaker().with_durability(name)
