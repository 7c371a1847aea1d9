from __future__ import annotations

import asyncio

import pytest

from breaker_store import (
    BotSuspendedError,
    BreakerStore,
    CircuitBreakerOpenError,
    CircuitState,
    Kind,
    NotSuspendedError,
    Policy,
    SuspendedError,
    UnknownBreakerError,
    control,
)
from breaker_store.control import ContendedBreakerError
from breaker_store.core.standing import StateVersion
from breaker_store.ports import Source
from breaker_store.postgres.verification import verify
from tests.postgres.living import Ear


async def answer() -> None:
    pass


@pytest.fixture
async def known(database_url: str) -> int:
    """Make a user with one event."""
    async with BreakerStore.open(database_url=database_url) as store:
        await store.registry.get_breaker(7).call(answer)
        await store.flush()
    return 7


async def test_a_reset_is_an_event_of_a_writer_of_its_own(database_url, known, connection):
    await control.reset(database_url, known, actor="Ada", reason="a drill")
    row = await connection.fetchrow("SELECT * FROM breaker_transitions")
    assert (row["kind"], row["writer_seq"], row["position"], row["version"]) == (Kind.RESET, 1, 1, 1)
    ledger = await connection.fetchrow("SELECT * FROM writer_batches WHERE writer_id = $1", row["writer_id"])
    assert (ledger["source"], ledger["batch_no"], ledger["event_count"]) == (Source.OPERATOR, 1, 1)


async def test_an_unknown_user_is_said_and_nothing_is_made_of_it(database_url, connection):
    with pytest.raises(UnknownBreakerError):
        await control.reset(database_url, 8)
    for table in ("breaker_states", "breaker_events", "writer_batches"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_each_of_several_resets_at_once_either_comes_or_says_that_it_did_not(
    database_url, known, connection
):
    resets = [control.reset(database_url, known) for _ in range(8)]
    answers = await asyncio.gather(*resets, return_exceptions=True)
    won = [standing for standing in answers if not isinstance(standing, ContendedBreakerError)]
    assert all(standing.state["state"] == "closed" for standing in won)
    positions = await connection.fetch(
        "SELECT position, version FROM breaker_transitions WHERE position IS NOT NULL ORDER BY position"
    )
    expected = list(range(1, len(won) + 1))
    assert [tuple(row) for row in positions] == [(number, number) for number in expected]


async def test_a_reset_comes_after_what_it_resets_whatever_the_clocks_say(database_url, known, connection):
    """A writer whose measure of the database's clock is ahead makes transitions of the near future."""
    await control.reset(database_url, known)
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version)"
        " SELECT occurred_at + interval '1 hour', user_id, 5, 1, 2, 2, 77, 2, kind, details, 1 FROM breaker_transitions"
    )
    await connection.execute("UPDATE log_position SET last = 2")
    await connection.execute("SELECT restore_breaker_state($1)", known)
    await control.reset(database_url, known)
    times = await connection.fetch("SELECT occurred_at FROM breaker_transitions ORDER BY version")
    assert len(times) == 3
    assert sorted(times) == times


async def test_a_breaker_that_is_forced_open_keeps_its_end_over_a_restart(database_url, known):
    await control.force_open(database_url, known, for_seconds=7_200, actor="Ada", reason="maintenance")
    async with BreakerStore.open(database_url=database_url) as store:
        breaker = store.registry.get_breaker(known)
        assert breaker.get_state()["timeout_remaining"] == pytest.approx(7_200, abs=60)
        with pytest.raises(CircuitBreakerOpenError):
            await breaker.call(answer)
    await control.force_open(database_url, known, actor="Ada")
    async with BreakerStore.open(database_url=database_url) as store:
        assert store.registry.get_breaker(known).state.retry_at is None


async def test_a_suspension_outlasts_a_restart_and_whatever_else_is_done(database_url, known):
    standing = await control.suspend(database_url, known, actor="Ada", reason="unpaid bill")
    assert standing.sentence.startswith("User 7's bot is suspended by Ada since ")
    for act in (control.reset, control.force_open, control.release):
        with pytest.raises(SuspendedError, match="user 7's bot is suspended: resume it first"):
            await act(database_url, known)
    standing = await control.set_policy(database_url, known, {"timeout_seconds": 1.0})
    assert (standing.suspension.actor, standing.suspension.reason) == ("Ada", "unpaid bill")
    async with BreakerStore.open(database_url=database_url) as store:
        with pytest.raises(BotSuspendedError, match="is suspended by Ada: unpaid bill"):
            await store.registry.get_breaker(known).call(answer)


async def test_a_bot_is_resumed_once(database_url, known):
    suspended = await control.suspend(database_url, known)
    standing = await control.resume(database_url, known, expected=suspended.version)
    assert (standing.suspension, standing.state["state"]) == (None, "closed")
    with pytest.raises(NotSuspendedError):
        await control.resume(database_url, known)


async def test_a_policy_set_meanwhile_changes_nothing_of_that_end(database_url, known):
    await control.force_open(database_url, known, for_seconds=7_200)
    standing = await control.set_policy(database_url, known, {"timeout_seconds": 1.0})
    assert standing.forced
    assert standing.state["timeout_remaining"] == pytest.approx(7_200, abs=60)


async def test_a_call_that_was_under_way_when_it_was_forced_open_changes_nothing(database_url, known):
    async with BreakerStore.open(database_url=database_url, policy=Policy(failure_threshold=1)) as store:
        breaker, under_way = store.registry.get_breaker(known), asyncio.Event()

        async def fail_late() -> None:
            await under_way.wait()
            raise ConnectionError

        call = asyncio.ensure_future(breaker.call(fail_late))
        await asyncio.sleep(0)
        breaker.force_open(actor="Ada")
        under_way.set()
        with pytest.raises(ConnectionError):
            await call
        await store.flush()
        assert (breaker.state.forced, breaker.state.failure_count) == (True, 0)
        breaker.release()
        assert await breaker.call(answer) is None


async def test_of_two_resets_of_what_both_saw_one_is_refused(database_url, known):
    async with BreakerStore.open(database_url=database_url) as store:
        seen = StateVersion.of(store.registry.get_breaker(known).state)
    answers = await asyncio.gather(
        *(control.reset(database_url, known, expected=seen, actor=name) for name in ("Ada", "Bob")),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in answers) == ["ChangedBreakerError", "Standing"]


async def test_two_resets_and_a_probe_in_flight_leave_one_chain(database_url, known, connection):
    """The probe began before the resets, so its failure opens nothing."""
    policy = Policy(failure_threshold=1, timeout_seconds=0, success_threshold=2)
    async with BreakerStore.open(database_url=database_url, policy=policy) as store:
        breaker, under_way = store.registry.get_breaker(known), asyncio.Event()

        async def fail() -> None:
            raise ConnectionError

        async def fail_late() -> None:
            await under_way.wait()
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await breaker.call(fail)
        await store.flush()
        ear = Ear(store.registry)
        probe = asyncio.ensure_future(breaker.call(fail_late))
        await asyncio.sleep(0)
        await store.flush()
        resets = [control.reset(database_url, known, actor=name) for name in ("Ada", "Bob")]
        await asyncio.gather(*resets, return_exceptions=True)
        await ear.wait_for_kind(Kind.RESET, known)
        under_way.set()
        with pytest.raises(ConnectionError):
            await probe
        await store.flush()
        assert breaker.state.state is CircuitState.CLOSED
    kinds = await connection.fetch(
        "SELECT kind FROM breaker_transitions WHERE position IS NOT NULL ORDER BY position"
    )
    assert [row["kind"] for row in kinds][:2] == [Kind.OPENED, Kind.HALF_OPENED]
    assert {row["kind"] for row in kinds[2:]} == {Kind.RESET}
    assert (await verify(database_url)).findings == ()
