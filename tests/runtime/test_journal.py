"""What waits to be stored: numbered as it happens, bounded, and nobody else's (DESIGN rules 11, 16 and 17)."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from breaker_store import CircuitBreakerOpenError, CircuitBreakerRegistry, Policy
from breaker_store.core.events import Kind, Outcome, Transition
from breaker_store.ports import MarkKind
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.journal import Journal
from tests.runtime.driving import Keeper, Recording, fail_times, recover, succeed, trip

NEVER_OPENS = Policy(failure_threshold=1_000_000)


async def succeed_times(recording: Recording, times: int) -> None:
    for _ in range(times):
        await recording.breaker.call(succeed)


async def test_without_a_recorder_nothing_is_kept_and_events_are_numbered_all_the_same() -> None:
    registry = CircuitBreakerRegistry(clock=ManualClock())
    breaker, journal = registry.get_breaker(101), registry.surroundings.journal
    await breaker.call(succeed)
    await trip(breaker)
    assert (journal.kept, len(journal.pending), journal.missed.total()) == (False, 0, 0)
    assert breaker.state.opened_by == (journal.writer_id, 7)
    assert breaker.state.last_failure.event_id.writer_seq == 6


async def test_an_id_is_the_place_of_its_event_in_the_queue(recording: Recording) -> None:
    """It is known when the event happens, and the row carries the same, whatever happened around it."""
    await recording.breaker.call(succeed)
    await recover(recording.breaker, recording.clock)
    with pytest.raises(CircuitBreakerOpenError):
        await trip_and_be_refused(recording)
    recording.breaker.reset()
    known = [
        entry[1].event_id
        for entry in recording.journal.pending
        if len(entry) == 3 and isinstance(entry[1], Outcome | Transition)
    ]
    batches = [recording.cut(limit=4) for _ in range(4)]
    batches.append(recording.cut())
    numbers = sorted(
        [row[2] for batch in batches for row in batch.outcomes]
        + [each.transition.event_id.writer_seq for batch in batches for each in batch.transitions]
    )
    assert numbers == list(range(1, len(numbers) + 1))
    places = {row[2] for batch in batches for row in batch.outcomes if row[6] in {Kind.FAILURE, Kind.SUCCESS}}
    places |= {each.transition.event_id.writer_seq for batch in batches for each in batch.transitions}
    assert {event_id.writer_seq for event_id in known} <= places
    assert {event_id.writer_id for event_id in known} == {recording.journal.writer_id}


async def test_an_error_that_calls_the_breaker_while_it_is_printed_does_not_take_anothers_number(
    recording: Recording,
) -> None:
    class MeddlingError(Exception):
        def __str__(self) -> str:
            recording.breaker.reset()
            return "reset"

    async def meddle() -> None:
        raise MeddlingError

    with pytest.raises(MeddlingError):
        await recording.breaker.call(meddle)
    assert [event.event_id.writer_seq for event in recording.events()] == [1, 2]


async def trip_and_be_refused(recording: Recording) -> None:
    await trip(recording.breaker)
    await recording.breaker.call(succeed)


async def test_numbers_go_on_from_batch_to_batch(recording: Recording) -> None:
    ranges = []
    for _ in range(3):
        await succeed_times(recording, 2)
        batch = recording.cut()
        ranges.append((batch.first_seq, batch.last_seq, batch.event_count))
    assert ranges == [(1, 2, 2), (3, 4, 2), (5, 6, 2)]


async def test_the_recorder_is_told_when_an_entry_arrives_in_an_empty_queue(recording: Recording) -> None:
    await succeed_times(recording, 3)
    assert (recording.keeper.woken, recording.keeper.hurried) == (1, 0)
    recording.cut()
    await fail_times(recording.breaker, 2)
    assert (recording.keeper.woken, recording.keeper.hurried) == (2, 0)


async def test_a_transition_cannot_wait(recording: Recording) -> None:
    await trip(recording.breaker)
    assert recording.keeper.hurried == 1


async def test_successes_give_way_when_the_queue_is_full_and_are_counted() -> None:
    recording = Recording(limit=8)
    await succeed_times(recording, 11)
    assert (len(recording.journal.pending), recording.journal.missed.total()) == (8, 3)
    assert recording.kinds() == [Kind.SUCCESS] * 8


async def test_refusals_give_way_when_the_queue_is_full_and_each_is_counted() -> None:
    recording = Recording(limit=8)
    await trip(recording.breaker)
    await succeed_other(recording, 2)
    for _ in range(4):
        with pytest.raises(CircuitBreakerOpenError):
            await recording.breaker.call(succeed)
    assert (len(recording.journal.pending), recording.journal.missed.total()) == (8, 4)
    recording.cut()
    with pytest.raises(CircuitBreakerOpenError):
        await recording.breaker.call(succeed)
    assert [event.count for event in recording.events()] == [1]


async def test_refusals_are_counted_on_in_an_entry_that_has_its_place_though_the_queue_is_full() -> None:
    recording = Recording(limit=8)
    await trip(recording.breaker)
    for _ in range(2):
        with pytest.raises(CircuitBreakerOpenError):
            await recording.breaker.call(succeed)
        await succeed_other(recording, 3)
    assert recording.journal.missed.total() == 5
    assert [event.count for event in recording.events() if event.kind is Kind.REJECTED] == [2]


async def succeed_other(recording: Recording, times: int) -> None:
    for _ in range(times):
        await recording.registry.get_breaker(102).call(succeed)


async def test_failures_and_transitions_have_a_quarter_more_room() -> None:
    recording = Recording(limit=8)
    await succeed_times(recording, 8)
    await fail_times(recording.breaker, 5)
    assert (len(recording.journal.pending), recording.journal.missed.total()) == (10, 4)
    assert recording.breaker.get_state()["state"] == "open"
    assert recording.kinds() == [Kind.SUCCESS] * 8 + [Kind.FAILURE] * 2


async def test_an_event_that_was_given_up_has_no_number_that_another_could_have() -> None:
    recording = Recording(NEVER_OPENS, limit=4)
    await fail_times(recording.breaker, 7)
    numbers = [failure.event_id.writer_seq for failure in recording.breaker.state.failures]
    assert numbers[:5] == [1, 2, 3, 4, 5]
    assert max(numbers[5:]) <= 0
    recording.cut()
    await fail_times(recording.breaker, 1)
    assert recording.breaker.state.failures[-1].event_id.writer_seq == 6


@pytest.mark.parametrize("limit", [1, 2, 4, 9])
async def test_the_queue_is_bounded_whatever_happens(limit: int) -> None:
    recording = Recording(Policy(failure_threshold=1, timeout_seconds=0, success_threshold=1), limit=limit)
    for user_id in range(20):
        breaker = recording.registry.get_breaker(user_id)
        await breaker.call(succeed)
        await recover(breaker, recording.clock)
        breaker.reset()
        assert len(recording.journal.pending) <= limit + limit // 4 + 1
    assert recording.journal.missed.total() > 0
    assert recording.journal.missed.total() + len(recording.journal.pending) == 20 * 7


async def test_what_the_queue_takes_again_is_numbered_without_a_gap() -> None:
    recording = Recording(limit=4)
    await succeed_times(recording, 9)
    first = recording.cut(limit=3)
    await succeed_times(recording, 2)
    second = recording.cut()
    assert (first.last_seq, second.first_seq, second.last_seq) == (3, 4, 6)


async def test_a_run_of_failures_whose_first_was_given_up_is_marked_by_the_first_that_is_kept() -> None:
    """A breaker's row would else say that there is nothing to count, and a restart forget the run."""
    recording = Recording(NEVER_OPENS, limit=4)
    await fail_times(recording.registry.get_breaker(102), 5)
    await fail_times(recording.breaker, 1)
    assert recording.journal.missed.total() == 1
    recording.cut()
    await fail_times(recording.breaker, 1)
    (mark,) = recording.cut().marks
    assert (mark.user_id, mark.kind) == (101, MarkKind.FAILED)


async def test_a_transition_that_was_given_up_does_not_wait_for_confirmation() -> None:
    """Else memory has no bound while a database is away."""
    recording = Recording(limit=4)
    for _ in range(100):
        recording.breaker.reset()
    assert recording.journal.missed.total() == 95
    assert recording.registry.surroundings.unconfirmed[101] == (1, 1, 5)


async def test_what_waits_for_confirmation_takes_no_more_room_the_more_there_is_of_it(
    recording: Recording,
) -> None:
    for _ in range(100):
        recording.breaker.reset()
    assert recording.registry.surroundings.unconfirmed == {101: (1, 1, 100)}


async def test_a_recorder_begins_as_a_new_writer_with_nothing_waiting(recording: Recording) -> None:
    await fail_times(recording.breaker, 3)
    recording.cut(limit=2)
    before = recording.journal.writer_id
    recording.journal.attach(Keeper(), 8)
    assert recording.journal.writer_id != before
    assert (len(recording.journal.pending), recording.journal.next_id().writer_seq) == (0, 1)


async def test_a_journal_that_lost_its_recorder_keeps_nothing(recording: Recording) -> None:
    await fail_times(recording.breaker, 1)
    recording.journal.begin()
    await fail_times(recording.breaker, 1)
    await recording.breaker.call(succeed)
    recording.breaker.reset()
    assert (recording.journal.kept, len(recording.journal.pending)) == (False, 0)


async def test_what_was_given_up_is_counted_anew_for_a_new_recorder() -> None:
    recording = Recording(limit=1)
    await succeed_times(recording, 3)
    recording.journal.attach(Keeper(), 1)
    assert recording.journal.missed.total() == 0


def test_eras_are_random_signed_32_bit_numbers_and_never_0() -> None:
    journal = Journal()
    eras = [journal.draw_era() for _ in range(10_000)]
    assert all(-(2**31) <= era < 2**31 and era != 0 for era in eras)
    assert len(set(eras)) > 9_990
    assert min(eras) < -(2**30)
    assert max(eras) > 2**30


def test_a_drawn_0_becomes_another_era(journal_that_draws_0: Journal) -> None:
    assert journal_that_draws_0.draw_era() == 1


class DrawsTheMiddle(random.Random):
    def getrandbits(self, _bits: int, /) -> int:
        return 2**31


@pytest.fixture
def journal_that_draws_0() -> Journal:
    journal = Journal()
    journal._random = DrawsTheMiddle()
    return journal


def test_writers_and_eras_differ_though_the_user_seeds_random() -> None:
    drawn = []
    for _ in range(3):
        random.seed(7)
        journal = Journal()
        drawn.append((journal.writer_id, journal.draw_era()))
    assert len(set(drawn)) == 3


def test_drawing_does_not_disturb_what_the_user_draws() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    Journal().draw_era()
    assert random.random() == expected


def test_a_writers_id_is_a_positive_signed_64_bit_number() -> None:
    ids = [Journal().writer_id for _ in range(200)]
    assert all(1 <= writer_id < 2**63 for writer_id in ids)
    assert max(ids) > 2**60


FORKING = """
import asyncio, os
from breaker_store import CircuitBreakerRegistry

class Keeper:
    def wake_later(self): pass
    def hurry(self): pass
    def write_through(self): pass
    def leave_to_parent(self): pass

async def succeed(): pass

registry = CircuitBreakerRegistry()
journal = registry.surroundings.journal
journal.attach(Keeper(), 100)
breaker = registry.get_breaker(101)
asyncio.run(breaker.call(succeed))
breaker.reset()
parent = (journal.writer_id, journal.draw_era(), len(journal.pending))
reading, writing = os.pipe()
if os.fork() == 0:
    asyncio.run(breaker.call(succeed))
    child = (journal.writer_id, journal.draw_era(), len(journal.pending), journal.kept, journal.next_id()[1])
    os.write(writing, repr(child).encode())
    os._exit(0)
os.wait()
print((parent, eval(os.read(reading, 10_000)), (journal.writer_id, len(journal.pending), journal.kept)))
"""


def test_a_forked_child_is_another_writer_and_has_nothing_of_its_parents_to_store() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True, timeout=30
    )
    parent, child, parent_after = eval(finished.stdout)  # noqa: S307 - our own script's answer
    assert parent[2] == 2
    assert child[0] != parent[0]
    assert child[1] != parent[1]
    assert child[2:] == (0, False, 2)
    assert parent_after == (parent[0], 2, True)
