"""What every log of events promises (DESIGN rules 10, 13 and 14)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from uuid import UUID

import pytest

from breaker_store import BotSuspendedError, CircuitState, LedgerError, Policy
from breaker_store.core.commands import CarryOver
from breaker_store.core.events import Kind, Transition
from breaker_store.ports import StoredBreaker
from tests.contract.writing import QUICK, USER, Writer, send_together, timeless

SMALL, LARGE = 3, 120
OWN = Policy(failure_threshold=7)


async def chain(writer: Writer) -> list[tuple[int, int, Kind, int | None]]:
    return [
        (user_id, each.version, each.kind, each.position)
        for user_id, each, _ in await writer.log.transitions_after(0, 10_000)
    ]


async def stored_state(writer: Writer, user_id: int = USER, policy: Policy = QUICK):
    stored = await writer.log.read_breaker(user_id, policy)
    assert stored is not None
    return stored.state


async def stored(writer: Writer) -> StoredBreaker:
    found = await writer.log.read_breaker(USER, QUICK)
    assert found is not None
    return found


async def test_a_user_without_events_is_unknown(writer: Writer) -> None:
    await writer.succeed(USER)
    await writer.send()
    assert await writer.log.read_breaker(USER + 1, QUICK) is None


async def test_a_breaker_is_known_from_its_first_event_on(writer: Writer) -> None:
    await writer.succeed(USER)
    await writer.send()
    stored = await writer.log.read_breaker(USER, QUICK)
    assert stored is not None
    assert stored.user_id == USER
    assert stored.state == writer.registry.first_state
    assert stored.remaining_us is None


@pytest.mark.parametrize("more", [SMALL, LARGE])
async def test_a_batch_that_is_sent_twice_is_stored_once(writer: Writer, more: int) -> None:
    await writer.succeed(USER + 1, more)
    await writer.fail(times=1)
    batch = writer.cut()
    sealed = writer.log.seal(batch)
    for _ in range(3):
        assert await writer.log.append(sealed) == []
    assert (await stored_state(writer)).failure_count == 1
    assert writer.log.seal(batch).digest == sealed.digest


async def test_a_batch_that_is_sent_twice_has_the_same_fates_again(writer: Writer) -> None:
    await writer.trip()
    sealed = writer.log.seal(writer.cut())
    first = await writer.log.append(sealed)
    assert [fate.position for fate in first] == [1]
    assert await writer.log.append(sealed) == first
    assert await chain(writer) == [(USER, 1, Kind.OPENED, 1)]


@pytest.mark.parametrize("more", [SMALL, LARGE])
async def test_other_contents_under_a_stored_number_are_an_error_and_change_nothing(
    writer: Writer, more: int
) -> None:
    await writer.fail(times=1)
    await writer.send()
    await writer.succeed(USER + 1, more)
    await writer.fail(times=1)
    batch = replace(writer.cut(), batch_no=1, previous_digest=None)
    with pytest.raises(LedgerError):
        await writer.append(batch)
    assert (await stored_state(writer)).failure_count == 1
    assert await writer.log.read_breaker(USER + 1, QUICK) is None
    assert await chain(writer) == []


async def test_a_batch_without_its_predecessor_is_an_error_and_changes_nothing(writer: Writer) -> None:
    await writer.fail(times=1)
    first = writer.log.seal(writer.cut())
    await writer.succeed()
    with pytest.raises(LedgerError):
        await writer.append(replace(writer.cut(), batch_no=2, previous_digest=first.digest))
    assert await writer.log.read_breaker(USER, QUICK) is None
    await writer.log.append(first)
    assert (await stored_state(writer)).failure_count == 1


async def test_a_batch_that_names_another_predecessor_is_an_error(writer: Writer) -> None:
    await writer.succeed()
    await writer.send()
    await writer.succeed()
    with pytest.raises(LedgerError):
        await writer.append(replace(writer.cut(), previous_digest=bytes(32)))


async def test_a_batch_whose_numbers_are_stored_already_is_an_error(writer: Writer) -> None:
    await writer.succeed(times=3)
    await writer.send()
    await writer.succeed()
    batch = writer.cut()
    row = batch.outcomes[0]
    with pytest.raises(LedgerError):
        await writer.append(
            replace(batch, first_seq=3, last_seq=3, outcomes=[(*row[:2], 3, *row[3:])], newcomers={})
        )


async def test_a_line_of_an_import_is_stored_once(writer: Writer) -> None:
    await writer.succeed()
    await writer.append(replace(writer.cut(), lines=[UUID(int=1), UUID(int=2)]))
    await writer.succeed()
    batch = writer.cut()
    with pytest.raises(LedgerError):
        await writer.append(replace(batch, lines=[UUID(int=3), UUID(int=2)]))
    await writer.append(replace(batch, lines=[UUID(int=3)]))


async def test_positions_count_the_transitions_of_all_breakers(writer: Writer, other: Writer) -> None:
    await writer.trip(1)
    await writer.trip(2)
    await other.trip(3)
    assert [fate.position for fate in await writer.send()] == [1, 2]
    assert [fate.position for fate in await other.send()] == [3]
    writer.clock.advance(10)
    await writer.succeed(1, 2)
    assert [(fate.user_id, fate.position) for fate in await writer.send()] == [(1, 4), (1, 5)]
    assert await chain(other) == [
        (1, 1, Kind.OPENED, 1),
        (2, 1, Kind.OPENED, 2),
        (3, 1, Kind.OPENED, 3),
        (1, 2, Kind.HALF_OPENED, 4),
        (1, 3, Kind.CLOSED, 5),
    ]


async def test_transitions_are_read_in_pages(writer: Writer) -> None:
    for user_id in range(5):
        await writer.trip(user_id)
    await writer.send()
    pages = [await writer.log.transitions_after(position, 2) for position in (0, 2, 4, 5, 99)]
    assert [[each.user_id for each in page] for page in pages] == [[0, 1], [2, 3], [4], [], []]


async def test_a_transition_is_read_as_it_was_decided(writer: Writer) -> None:
    told: asyncio.Future[Transition] = asyncio.get_running_loop().create_future()
    writer.registry.subscribe(lambda _, transition: told.set_result(transition))
    await writer.trip()
    await writer.send()
    ((user_id, stored, _),) = await writer.log.transitions_after(0, 10)
    assert user_id == USER
    assert stored == replace((await told).shifted(writer.log.correction_us), position=1)
    assert [cause.error_message for cause in stored.causes] == ["no answer", "no answer"]


async def test_a_suspension_is_read_by_every_process_with_who_and_why(writer: Writer, other: Writer) -> None:
    writer.breaker().suspend(actor="ann", reason="unpaid bill")
    writer.breaker().set_policy(OWN)
    await writer.send()
    suspension = (await stored_state(writer)).suspension
    assert suspension is not None
    assert (suspension.actor, suspension.reason) == ("ann", "unpaid bill")
    await other.follower.poll()
    with pytest.raises(BotSuspendedError, match="unpaid bill"):
        await other.succeed()
    other.breaker().resume(actor="bob", reason="paid")
    await other.send()
    await writer.follower.poll()
    await writer.succeed()
    assert (await stored_state(writer)).suspension is None


async def test_a_count_that_was_carried_over_goes_on_in_every_process(writer: Writer, other: Writer) -> None:
    await writer.fail()
    await writer.send()
    breaker = other.breaker()
    breaker.adopt(other.follower.to_live(await stored(other)))
    breaker._act(CarryOver(*breaker._new_count(), "they are old"))
    await other.send()
    await writer.follower.poll()
    for each in (writer, other):
        assert timeless(await stored_state(each)) == timeless(each.breaker().state)
    await writer.fail()
    assert writer.breaker().state.state is CircuitState.OPEN
    assert [fate.position for fate in await writer.send()] == [2]


async def test_of_two_processes_that_open_a_breaker_one_wins(writer: Writer, other: Writer) -> None:
    await writer.trip()
    await other.trip()
    assert [fate.position for fate in await writer.send()] == [1]
    assert [fate.position for fate in await other.send()] == [None]
    assert await chain(writer) == [(USER, 1, Kind.OPENED, 1)]
    assert (await stored_state(writer)).era == writer.breaker().state.era


async def test_what_is_built_on_a_transition_that_lost_is_superseded_too(
    writer: Writer, other: Writer
) -> None:
    await writer.trip()
    await writer.send()
    await other.trip()
    other.clock.advance(10)
    await other.succeed(USER, 2)
    other.breaker().reset()
    assert [fate.position for fate in await other.send()] == [None] * 4
    other.breaker().reset()
    assert [fate.position for fate in await other.send()] == [None]
    assert await chain(writer) == [(USER, 1, Kind.OPENED, 1)]


async def test_two_changes_of_policy_at_once_leave_one_and_nothing_is_built_on_the_other(
    writer: Writer, other: Writer
) -> None:
    """A change of policy draws no era, so the predecessor's identity has to tell them apart."""
    for each in (writer, other):
        each.breaker().set_policy(OWN)
    assert [fate.position for fate in await writer.send()] == [1]
    other.breaker().set_policy(replace(OWN, failure_threshold=9))
    assert [fate.position for fate in await other.send()] == [None, None]
    assert (await stored_state(writer)).policy == OWN


@pytest.mark.parametrize("more", [SMALL, LARGE])
async def test_the_batch_of_a_transition_that_lost_is_stored_whole(
    writer: Writer, other: Writer, more: int
) -> None:
    await writer.trip()
    await writer.send()
    await other.succeed(2, more)
    await other.fail(3)
    await other.trip()
    await other.trip(4)
    assert [fate.position for fate in await other.send()] == [None, 2]
    assert (await stored_state(other, 3)).failure_count == 1
    assert (await stored_state(other, 4)).state is CircuitState.OPEN


async def test_a_process_that_lost_goes_on_from_what_is_stored(writer: Writer, other: Writer) -> None:
    await writer.trip()
    await writer.send_and_settle()
    await other.trip()
    await other.send_and_settle()
    assert other.breaker().state.era == writer.breaker().state.era
    other.breaker().reset()
    assert [fate.position for fate in await other.send()] == [2]


async def test_a_breaker_is_read_as_it_is_live(writer: Writer) -> None:
    for step in (writer.fail, writer.trip, writer.succeed, writer.succeed, writer.fail, writer.succeed):
        await step()
        await writer.send()
        assert timeless(await stored_state(writer)) == timeless(writer.breaker().state)
        writer.clock.advance(10)


async def test_a_waiting_breaker_tells_what_remains(writer: Writer) -> None:
    await writer.trip()
    await writer.send()
    stored = await writer.log.read_breaker(USER, QUICK)
    assert stored is not None
    assert stored.remaining_us == pytest.approx(10_000_000, abs=5_000_000)


async def test_a_policy_of_ones_own_is_read_and_the_default_is_todays(writer: Writer) -> None:
    writer.registry.set_policy(USER, OWN)
    await writer.trip(USER + 1)
    await writer.send()
    today = Policy(failure_threshold=3)
    assert (await stored_state(writer, USER, today)).policy == OWN
    assert (await stored_state(writer, USER + 1, today)).policy == today


async def test_the_state_does_not_depend_on_the_order_of_arrival(writer: Writer, other: Writer) -> None:
    await writer.fail()
    for each in (writer, other):
        each.clock.advance(1)
    await other.succeed()
    await other.send()
    writer.clock.advance(1)
    await writer.succeed(USER + 1)
    await writer.send()
    assert (await stored_state(writer)).failure_count == 0


async def test_a_late_success_does_not_undo_a_trip(writer: Writer, other: Writer) -> None:
    await other.succeed()
    writer.clock.advance(1)
    await writer.trip()
    await writer.send()
    await other.send()
    assert (await stored_state(writer)).state is CircuitState.OPEN


async def test_positions_have_no_gap_however_many_write_at_once(new_writer) -> None:
    """Each round every process runs into the same users, in another order each, and none waits for another for ever."""
    writers = [await new_writer() for _ in range(4)]
    dice = random.Random(7)
    won = lost = 0
    for _ in range(6):
        for writer in writers:
            users = list(range(12))
            dice.shuffle(users)
            await churn(writer, users, dice)
        for writer, fates in zip(writers, await send_together(*writers), strict=True):
            won += sum(fate.position is not None for fate in fates)
            lost += sum(fate.position is None for fate in fates)
            await writer.follower.settle(fates)
        await asyncio.gather(*(writer.follower.poll() for writer in writers))
    page = await writers[0].log.transitions_after(0, 10_000)
    assert [each.transition.position for each in page] == list(range(1, won + 1))
    assert won > 50
    assert lost > 50
    assert versions_of(page) == {
        user_id: list(range(1, len(v) + 1)) for user_id, v in versions_of(page).items()
    }


def versions_of(page) -> dict[int, list[int]]:
    versions: dict[int, list[int]] = {}
    for user_id, transition, _ in page:
        versions.setdefault(user_id, []).append(transition.version)
    return versions


async def churn(writer: Writer, users: list[int], dice: random.Random) -> None:
    """Have marks and transitions happen to users in this order."""
    for user_id in users:
        match dice.randrange(4):
            case 0:
                writer.breaker(user_id).reset()
            case 1:
                writer.breaker(user_id).reset()
                await writer.fail(user_id)
            case 2 if writer.breaker(user_id).state.state is CircuitState.CLOSED:
                await writer.trip(user_id)
            case _:
                writer.breaker(user_id).reset()
                await writer.fail(user_id)
                await writer.succeed(user_id)
