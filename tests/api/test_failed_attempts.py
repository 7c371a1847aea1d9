from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from breaker_store.api.failed_attempts import (
    ADDRESSES,
    FIRST_DELAY_SECONDS,
    FORGOTTEN_SECONDS,
    FREE_FAILURES,
    LINES_A_MINUTE,
    LONGEST_DELAY_SECONDS,
    WAITING_ANSWERS,
    FailedAttempts,
)


class Waiting:
    """A clock that stands still, and sleep that is noted instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.attempts = FailedAttempts(lambda: self.now, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def fail(self, client: str | None, times: int) -> list[float]:
        """Fail so many times; give what the answers waited."""
        self.slept = []
        for _ in range(times):
            await self.attempts.take_in(client, None)
        return self.slept


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


async def test_who_goes_on_failing_waits_longer_and_longer_up_to_a_limit(waiting):
    assert await waiting.fail("192.0.2.1", FREE_FAILURES) == []
    assert await waiting.fail("192.0.2.1", 3) == [FIRST_DELAY_SECONDS * factor for factor in (1, 2, 4)]
    assert (await waiting.fail("192.0.2.1", 5_000))[-1] == LONGEST_DELAY_SECONDS


async def test_others_do_not_wait_for_it(waiting):
    await waiting.fail("192.0.2.1", 100)
    assert await waiting.fail("192.0.2.2", FREE_FAILURES) == []
    assert await waiting.fail(None, FREE_FAILURES) == []


async def test_a_network_of_ipv6_is_one_address(waiting):
    await waiting.fail("2001:db8::1", FREE_FAILURES)
    assert await waiting.fail("2001:db8::ffff:2", 1) == [FIRST_DELAY_SECONDS]
    assert await waiting.fail("2001:db8:0:1::1", 1) == []


async def test_who_has_been_quiet_begins_anew(waiting):
    await waiting.fail("192.0.2.1", 100)
    waiting.now += FORGOTTEN_SECONDS
    assert await waiting.fail("192.0.2.1", FREE_FAILURES) == []


async def test_so_many_addresses_are_kept_and_the_quietest_is_forgotten_first(waiting):
    await waiting.fail("192.0.2.1", FREE_FAILURES)
    await waiting.fail("192.0.2.2", FREE_FAILURES)
    for number in range(ADDRESSES - 1):
        await waiting.fail(f"client {number}", 1)
    assert await waiting.fail("192.0.2.2", 1) == [FIRST_DELAY_SECONDS]
    assert await waiting.fail("192.0.2.1", 1) == []


@pytest.fixture
async def gate() -> AsyncIterator[asyncio.Event]:
    gate = asyncio.Event()
    yield gate
    gate.set()


async def test_so_many_answers_wait_and_those_beyond_are_given_at_once(gate):
    attempts = FailedAttempts(lambda: 0.0, lambda _seconds: gate.wait())
    for _ in range(FREE_FAILURES):
        await attempts.take_in("192.0.2.1", None)
    waiting = [asyncio.create_task(attempts.take_in("192.0.2.1", None)) for _ in range(WAITING_ANSWERS)]
    await asyncio.sleep(0)
    await asyncio.wait_for(attempts.take_in("192.0.2.1", None), 1)
    assert not any(task.done() for task in waiting)
    # Who hangs up makes room.
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    late = asyncio.create_task(attempts.take_in("192.0.2.1", None))
    await asyncio.sleep(0)
    assert not late.done()
    gate.set()
    await asyncio.gather(*waiting[1:], late)


async def test_a_failure_is_logged_with_the_address_and_the_tokens_id_and_no_more(waiting, caplog):
    await waiting.attempts.take_in("192.0.2.1", "0123456789ab")
    await waiting.attempts.take_in("10.0.0.1\r\nforged line\x1b[2J" + "x" * 10_000, None)
    await waiting.attempts.take_in(None, None)
    first, hostile, unknown = caplog.messages
    assert first == "an attempt to sign in failed: from 192.0.2.1, with the token id 0123456789ab"
    assert hostile.startswith("an attempt to sign in failed: from 10.0.0.1\\r\\nforged line\\x1b[2Jx")
    assert hostile.isprintable()
    assert len(hostile) < 150
    assert unknown == "an attempt to sign in failed: from an unknown address, with no token"


async def test_so_many_lines_a_minute_are_logged_and_the_rest_is_counted(waiting, caplog):
    await waiting.fail("192.0.2.1", 1_000)
    assert len(caplog.messages) == LINES_A_MINUTE
    waiting.now += 60
    await waiting.fail("192.0.2.1", 1)
    assert caplog.messages[LINES_A_MINUTE] == "990 more attempts to sign in failed, not told one by one"
    assert len(caplog.messages) == LINES_A_MINUTE + 2
