"""Staged resets are carried out in time, once, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from breaker_store import BreakerStore, control
from breaker_store.core.events import EventId
from breaker_store.core.staged_resets import Settlement
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.staged_reset_queue import NotHeldError, Result, StagedResetQueue
from breaker_store.postgres.staged_resets import (
    StagedFilter,
    StagedResetItem,
    first_failures,
    stage_reset,
    staged_reset,
    stop_staged_reset,
)
from breaker_store.runtime.clock import ManualClock
from breaker_store.staged_reset import StagedReset, _Claims, resetting
from tests.postgres.faults import THREE_AM, USER, outage, seed
from tests.postgres.histories import asking
from tests.postgres.living import fail
from tests.postgres.proxy import Proxy

NETWORK = StagedFilter("NetworkError")
USERS = range(USER, USER + 12)
LAPSE = "UPDATE staged_resets SET leased_until = clock_timestamp()"
RESETS = "SELECT user_id, count(*) FROM breaker_transitions WHERE kind = 13 AND position IS NOT NULL GROUP BY user_id"


@pytest.fixture(autouse=True)
async def night(database_url: str) -> None:
    """Have twelve breakers trip by the same error."""
    await seed(database_url, outage(USERS))


class Runner:
    """Carries out staged resets on a clock of its own, on which nothing takes time but the waits.

    Attributes:
        at: when each reset was decided, in microseconds on that clock.
        steps: done at each wait, before it is over.

    """

    def __init__(self, database_url: str, staged_reset_id: int) -> None:
        self.clock = ManualClock()
        self.queue = StagedResetQueue(database_url, staged_reset_id)
        self.log = _Noting(database_url, self.clock)
        self.at = self.log.at
        self.steps: list[Callable[[], Awaitable[None]]] = []
        self._run = StagedReset(self.queue, self.log, self.clock, pause=self._pause)

    async def run(self) -> None:
        await self._run.run()

    async def _pause(self, seconds: float) -> None:
        self.clock.advance(seconds + 0.000_001)
        if self.steps:
            await self.steps.pop(0)()

    async def close(self) -> None:
        await self.queue.close()
        await self.log.close()


class _Noting(PostgresEventLog):
    """A log that notes when each append was decided, and done, on the runner's clock.

    Attributes:
        dies_after: the append after which this process dies.
        slow_seconds: how long the appends of these numbers take.
        confusing: whose breaker can't be read.
        before_reading: what is done between the look at a breaker and the reading of its state.

    """

    def __init__(self, database_url: str, clock: ManualClock) -> None:
        super().__init__(database_url, clock)
        self.clock = clock
        self.at: list[int] = []
        self.done: list[int] = []
        self.dies_after: int | None = None
        self.slow_seconds: dict[int, float] = {}
        self.confusing: int | None = None
        self.before_reading: list[Callable[[], Awaitable[None]]] = []

    async def keep_time(self):
        await super().keep_time()
        if self.before_reading:
            await self.before_reading.pop(0)()

    async def read_breaker(self, user_id, default):
        if user_id == self.confusing:
            raise ValueError("no such state")
        return await super().read_breaker(user_id, default)

    async def append(self, sealed):
        self.at.append(self.clock.now_us())
        fates = await super().append(sealed)
        self.clock.advance(self.slow_seconds.get(len(self.at), 0))
        self.done.append(self.clock.now_us())
        if len(self.at) == self.dies_after:
            raise DeathError
        return fates


class DeathError(BaseException):
    """The process is killed here."""


Make = Callable[[int], Runner]


@pytest.fixture
async def make(database_url: str) -> AsyncIterator[Make]:
    made: list[Runner] = []

    def make(number: int, url: str = database_url) -> Runner:
        made.append(Runner(url, number))
        return made[-1]

    yield make
    for runner in made:
        await runner.close()


async def look(database_url: str, number: int) -> StagedResetItem:
    async with asking(database_url) as connection:
        return await staged_reset(connection, number)


async def once_each(connection: asyncpg.Connection) -> set[int]:
    """Give who was reset, each once."""
    rows = await connection.fetch(RESETS)
    assert {row["count"] for row in rows} <= {1}
    return {row["user_id"] for row in rows}


def most_in_a_second(times: list[int]) -> int:
    return max(sum(start <= at < start + 1_000_000 for at in times) for start in times)


async def test_each_reset_is_an_operators_event_that_names_the_staged_reset(database_url, make, connection):
    number = await stage_reset(database_url, NETWORK, 10, actor="Ada", reason="provider is back")
    await make(number).run()
    rows = await connection.fetch(
        "SELECT details ->> 'actor' AS actor, details ->> 'reason' AS reason, source FROM breaker_transitions"
        " JOIN writer_batches USING (writer_id) WHERE kind = 13 AND batch_no = writer_seq"
    )
    assert [tuple(row) for row in rows] == [("Ada", f"provider is back (staged reset {number})", 2)] * 12
    item = await look(database_url, number)
    assert (item.state, item.reset, item.waiting, item.underway) == ("done", 12, 0, False)
    assert await connection.fetchval("SELECT count(*) FROM breaker_states WHERE state <> 0") == 0


@pytest.mark.parametrize("per_second", [3, 7.5, 100])
async def test_there_are_never_more_than_so_many_in_a_second(database_url, make, per_second):
    runner = make(await stage_reset(database_url, NETWORK, per_second))
    began = runner.clock.now_us()
    await runner.run()
    assert most_in_a_second(runner.at) <= -(-per_second // 1)
    assert all(
        later - earlier >= 1_000_000 / per_second
        for earlier, later in zip([began, *runner.at], runner.at, strict=False)
    )
    # Nor is it much slower than that.
    assert runner.at[-1] - began < 12.5 * 1_000_000 / per_second


@pytest.mark.parametrize("per_second", [0.5, 1, 4])
async def test_one_that_waits_for_a_lock_takes_effect_with_no_more_than_that_either(
    database_url, make, per_second
):
    runner = make(await stage_reset(database_url, NETWORK, per_second))
    runner.log.slow_seconds = {5: 5, 6: 0.1}
    await runner.run()
    assert most_in_a_second(runner.log.done) <= max(1, per_second)
    assert runner.log.done[4] - runner.at[4] == 5_000_000


async def test_nothing_is_made_up_for_after_an_outage(database_url, make, connection):
    async with Proxy.to(database_url) as proxy:
        runner = make(await stage_reset(database_url, NETWORK, 4), proxy.url)

        async def go_on() -> None:
            pass

        runner.steps = [go_on, go_on, go_on, proxy.close, *[go_on] * 30, proxy.open]
        await runner.run()
    gaps = [later - earlier for earlier, later in zip(runner.at, runner.at[1:], strict=False)]
    assert max(gaps) > 20_000_000
    assert min(gaps) >= 250_000
    assert await once_each(connection) == set(USERS)


async def test_who_takes_over_waits_first_and_resets_nobody_again(database_url, make, connection):
    number = await stage_reset(database_url, NETWORK, 5)
    first, second = make(number), make(number)
    first.log.dies_after = 4
    with pytest.raises(DeathError):
        await first.run()
    # The fourth is in the log, and nothing else says so.
    assert (await look(database_url, number)).reset == 3
    await second.run()
    assert second.at == []  # the lease of the first has not lapsed yet
    await connection.execute(LAPSE)
    third = make(number)
    took_over = third.clock.now_us()
    await third.run()
    assert len(third.at) == 8
    assert third.at[0] - took_over >= 200_000
    item = await look(database_url, number)
    assert (item.state, item.reset, item.moved_on, item.failed) == ("done", 12, 0, 0)
    assert await once_each(connection) == set(USERS)
    unknown = "SELECT count(*) FROM staged_reset_breakers AS b LEFT JOIN breaker_transitions USING (writer_id, writer_seq)"
    assert await connection.fetchval(f"{unknown} WHERE kind IS DISTINCT FROM 13") == 0


async def test_an_answer_that_is_lost_leads_to_no_second_reset(database_url, make, connection):
    async with Proxy.to(database_url) as proxy:
        number = await stage_reset(database_url, NETWORK, 100)
        runner = make(number, proxy.url)

        async def lose() -> None:
            proxy.answers_to_lose = 4

        runner.steps = [lose]
        await runner.run()
    assert (await look(database_url, number)).reset == 12
    assert await once_each(connection) == set(USERS)


async def test_two_at_once_reset_each_breaker_once(database_url, make, connection):
    """Even where the lease does not keep them apart."""
    number = await stage_reset(database_url, NETWORK, 100)
    runners = [make(number), make(number)]

    async def lapse() -> None:
        await connection.execute(LAPSE)

    async def give_way() -> None:
        await asyncio.sleep(0)

    runners[0].steps = [lapse, give_way] * 4
    await asyncio.gather(*(runner.run() for runner in runners))
    await connection.execute(LAPSE)
    await make(number).run()
    item = await look(database_url, number)
    assert (item.state, item.reset, item.moved_on) == ("done", 12, 0)
    assert await once_each(connection) == set(USERS)


async def test_what_moved_on_is_passed_over_and_what_failed_its_probe_is_reset(
    database_url, make, connection
):
    number = await stage_reset(database_url, NETWORK, 10)
    by_hand, tripped_again, probed = USERS[:3]
    await control.reset(database_url, by_hand)
    await control.reset(database_url, tripped_again)
    await seed(database_url, outage([tripped_again], at=THREE_AM + 10**14 // 8))
    await reopen(database_url, probed)
    await make(number).run()
    item = await look(database_url, number)
    assert (item.state, item.reset, item.moved_on) == ("done", 10, 2)
    rows = await connection.fetch("SELECT user_id FROM staged_reset_breakers WHERE settlement = 2")
    assert {row["user_id"] for row in rows} == {by_hand, tripped_again}
    state = "SELECT state FROM breaker_states WHERE user_id = $1"
    assert await connection.fetchval(state, probed) == 0


async def reopen(database_url: str, user_id: int) -> None:
    """Have a probe of a breaker fail: it is open again, and was never well."""

    async with BreakerStore.open(database_url=database_url) as store:
        before = store.registry.get_breaker(user_id).state.version
        await fail(store.registry.get_breaker(user_id))
        await store.flush()
        assert store.registry.get_breaker(user_id).state.version == before + 2


async def test_once_it_is_stopped_at_most_the_one_under_way_is_still_reset(database_url, make, connection):
    number = await stage_reset(database_url, NETWORK, 10)
    runner = make(number)
    done_then: list[int] = []

    async def go_on() -> None:
        pass

    async def stop() -> None:
        done_then.append(len(runner.at))
        await stop_staged_reset(database_url, number, actor="Grace")

    runner.steps = [go_on, go_on, go_on, stop]
    await runner.run()
    assert len(runner.at) <= done_then[0] + 1
    item = await look(database_url, number)
    assert (item.state, item.stopped_by, item.reset, item.remaining_seconds) == (
        "stopped", "Grace", len(runner.at), 0,
    )  # fmt: skip
    assert item.waiting == 12 - item.reset > 0
    # It stays so.
    await make(number).run()
    assert (await look(database_url, number)) == item
    assert len(await once_each(connection)) == item.reset


async def test_a_suspended_bot_is_passed_over_whenever_it_was_suspended(database_url, make, connection):
    await control.suspend(database_url, USERS[0], reason="unpaid bill")
    number = await stage_reset(database_url, NETWORK, 100)
    await control.suspend(database_url, USERS[1], reason="unpaid bill")
    runner = make(number)

    async def suspend_one_that_was_looked_at() -> None:
        await control.suspend(database_url, USERS[2], reason="unpaid bill")

    runner.log.before_reading = [suspend_one_that_was_looked_at]
    await runner.run()
    item = await look(database_url, number)
    assert (item.state, item.total, item.moved_on, item.reset, item.failed) == ("done", 11, 2, 9, 0)
    assert await once_each(connection) == set(USERS[3:])


async def test_a_breaker_that_others_keep_changing_fails_and_the_others_go_on(database_url, make, owner):
    number = await stage_reset(database_url, NETWORK, 100)
    await owner.execute(
        "CREATE FUNCTION change_first() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" UPDATE breaker_states SET version = version + 1 WHERE user_id = {USERS[3]}; RETURN NEW; END $$;"
        "CREATE TRIGGER change_first BEFORE INSERT ON writer_batches FOR EACH ROW EXECUTE FUNCTION change_first()"
    )
    await make(number).run()
    item = await look(database_url, number)
    assert (item.state, item.reset, item.failed) == ("done", 11, 1)
    async with asking(database_url) as reader:
        [failure] = await first_failures(reader, item)
    assert (failure.user_id, failure.error) == (USERS[3], "others changed the breaker 5 times in a row")


async def test_a_breaker_that_can_not_be_read_fails_and_the_others_go_on(
    database_url, make, connection, caplog
):
    runner = make(await stage_reset(database_url, NETWORK, 100))
    runner.log.confusing = USERS[0]
    await runner.run()
    item = await look(database_url, runner.queue.id)
    assert (item.state, item.reset, item.failed) == ("done", 11, 1)
    async with asking(database_url) as reader:
        [failure] = await first_failures(reader, item)
    assert failure.error == "what went wrong stands in the log of the process that carries it out"
    assert "no such state" in caplog.text
    assert await once_each(connection) == set(USERS[1:])


async def test_what_nobody_expected_does_not_end_the_looking(caplog):
    claims = _Claims("postgresql://nobody@127.0.0.1:no-port/nothing")
    assert [await claims.find(), await claims.find()] == [[], []]
    [message] = caplog.messages
    assert message.startswith("can't look for staged resets for now: ValueError")


async def test_each_step_is_refused_once_another_process_has_the_lease(database_url, connection):
    number = await stage_reset(database_url, NETWORK, 1)
    first, second = StagedResetQueue(database_url, number), StagedResetQueue(database_url, number)
    assert await first.claim(1)
    assert await second.claim(2) is None
    [breaker, *_] = await first.waiting(None)
    await connection.execute(LAPSE)
    assert await second.claim(2)
    result = Result(Settlement.RESET, EventId(1, 1))
    for step in (first.renew(), first.look(breaker), first.settle(breaker, result)):
        with pytest.raises(NotHeldError):
            await step
    assert not await first.finish()
    # What is said twice is counted once.
    await second.settle(breaker, result)
    await second.settle(breaker, result)
    assert (await look(database_url, number)).reset == 1
    await first.close()
    await second.renew()
    await second.close()


async def test_several_are_carried_out_at_once_each_at_its_own_pace(database_url, connection):
    slow = await stage_reset(database_url, NETWORK, 0.1)
    quick = await stage_reset(database_url, NETWORK, 100)
    async with resetting(database_url), asyncio.timeout(20):
        while (await look(database_url, quick)).state == "running":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)
        assert (await look(database_url, slow)).state == "running"
    assert not (await look(database_url, slow)).underway
    assert await once_each(connection) == set(USERS)
