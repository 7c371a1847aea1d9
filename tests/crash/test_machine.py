"""Whatever becomes of the log and of the process, in whatever order: what was journaled is stored, once and in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import settings

from breaker_store.settings import Durability
from tests.crash.misfortune import AnyMisfortune
from tests.depth import DEPTH


class AnyMisfortuneBehind(AnyMisfortune):
    durability = Durability.BEHIND


class AnyMisfortuneJournaled(AnyMisfortune):
    durability = Durability.JOURNALED


class AnyMisfortuneCommitted(AnyMisfortune):
    durability = Durability.COMMITTED


class AnyMisfortuneMixed(AnyMisfortune):
    durability = Durability.BEHIND
    others = (Durability.JOURNALED, Durability.COMMITTED)


TestBehind = AnyMisfortuneBehind.TestCase
TestJournaled = AnyMisfortuneJournaled.TestCase
TestCommitted = AnyMisfortuneCommitted.TestCase
TestMixed = AnyMisfortuneMixed.TestCase
TestBehind.settings = TestJournaled.settings = TestCommitted.settings = TestMixed.settings = settings(
    max_examples=25 * DEPTH, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)


@contextmanager
def misfortune() -> Iterator[AnyMisfortuneJournaled]:
    """Have a story of one's own, at whose end all of it must hold."""
    machine = AnyMisfortuneJournaled()
    machine.start_for_the_first_time()
    try:
        yield machine
    finally:
        machine.teardown()


def test_calls_that_go_on_while_a_backlog_is_delivered_are_stored_once() -> None:
    with misfortune() as story:
        story.begin_an_outage(freezes=False)
        story.call_steadily(user_id=1, times=30, interval_seconds=0.007)
        story.clear_up()
        for _ in range(2):
            story.call_until_it_is_stored(user_id=1)


def test_a_breaker_that_tries_again_just_before_the_process_is_killed_loses_no_transition() -> None:
    with misfortune() as story:
        story.call_steadily(user_id=1, times=3, interval_seconds=0.03)
        story.call(user_id=1, succeeds=False, seconds=0.0)
        story.kill()
        story.start()


def test_a_long_backlog_whose_delivery_is_broken_off_is_delivered_by_the_next_process() -> None:
    with misfortune() as story:
        story.begin_an_outage(freezes=False)
        for _ in range(60):
            story.call_steadily(user_id=1, times=30, interval_seconds=0.001)
        story.clear_up()
        story.call_until_it_is_stored(user_id=1)
        story.wait(0.003)
        story.kill()
        story.start()
