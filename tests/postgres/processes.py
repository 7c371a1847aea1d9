"""Histories of one user's breaker, at work in one process or two at once."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from breaker_store import CircuitBreakerOpenError, NotSuspendedError, Policy, SuspendedError
from breaker_store.core.commands import CarryOver
from breaker_store.failures import HTTP, BadAnswer
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.writing import Writer
from tests.depth import DEPTH

# Waits are short, so that the clocks of a test that takes none stay close to the database's.
WAIT_SECONDS = 0.0001
POLICY = Policy(failure_threshold=3, timeout_seconds=WAIT_SECONDS, success_threshold=2, half_open_max_calls=2)
OWN = Policy(failure_threshold=4, timeout_seconds=2 * WAIT_SECONDS, success_threshold=1)
USERS = itertools.count(1_000)

databases = settings(
    max_examples=20 * DEPTH,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

STEPS = [
    "succeed", "fail", "fail", "fail", "revoke", "hurry", "wait", "send", "send", "hear", "restart", "reset", "set_policy", "suspend", "resume",
    "resume", "carry_over",
]  # fmt: skip
steps = st.sampled_from(STEPS)
one_process = st.lists(st.tuples(st.just(0), steps), max_size=25)
two_processes = st.lists(st.tuples(st.integers(0, 1), steps), max_size=30)


def run(text: str) -> list[tuple[int, str]]:
    """Write a history shorter: the process's number and its step, divided by spaces."""
    return [(int(step[0]), step[1:]) for step in text.split()]


class Process:
    """One process among those that use a user's breaker; it can be started again."""

    def __init__(self, log: PostgresEventLog, clock: ManualClock, connection: asyncpg.Connection) -> None:
        self._log, self._clock, self._connection = log, clock, connection
        self.user_id = 0

    async def start(self, user_id: int) -> None:
        self.user_id = user_id
        self.writer = Writer(self._log, self._clock, POLICY)
        self.writer.follower.position = await self._connection.fetchval("SELECT last FROM log_position")
        stored = await self._log.read_breaker(user_id, POLICY)
        if stored is not None:
            self.writer.registry.take_over({user_id: self.writer.follower.to_live(stored)}, {})

    async def take(self, step: str) -> None:
        self._clock.advance(0.000001)
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "succeed": self.succeed,
            "fail": self.fail,
            "revoke": self.revoke,
            "hurry": self.hurry,
            "wait": self.wait,
            "send": self.send,
            "hear": self.hear,
            "restart": self.restart,
            "reset": self.reset,
            "set_policy": self.set_policy,
            "suspend": self.suspend,
            "resume": self.resume,
            "carry_over": self.carry_over,
        }
        await actions[step]()

    async def succeed(self) -> None:
        with suppress(CircuitBreakerOpenError):
            await self.writer.succeed(self.user_id)

    async def fail(self) -> None:
        with suppress(CircuitBreakerOpenError):
            await self.writer.fail(self.user_id)

    async def revoke(self) -> None:
        """Fail in a way that opens the breaker at once."""
        await self._be_answered(401)

    async def hurry(self) -> None:
        """Be answered that calls come too fast."""
        await self._be_answered(429)

    async def _be_answered(self, status: int) -> None:
        with suppress(CircuitBreakerOpenError):
            await self.writer.breaker(self.user_id).begin("send", failures=HTTP).end(BadAnswer(None, status))

    async def wait(self) -> None:
        self._clock.advance(WAIT_SECONDS)

    async def send(self) -> None:
        if self.writer.journal.pending:
            await self.writer.send_and_settle()

    async def hear(self) -> None:
        await self.writer.follower.poll()

    async def restart(self) -> None:
        await self.send()
        await self.start(self.user_id)

    async def reset(self) -> None:
        with suppress(SuspendedError):
            self.writer.breaker(self.user_id).reset()

    async def suspend(self) -> None:
        self.writer.breaker(self.user_id).suspend(actor="ann", reason="unpaid bill")

    async def resume(self) -> None:
        with suppress(NotSuspendedError):
            self.writer.breaker(self.user_id).resume(actor="bob")

    async def carry_over(self) -> None:
        breaker = self.writer.breaker(self.user_id)
        breaker._act(CarryOver(*breaker._new_count(), "they are old"))

    async def set_policy(self) -> None:
        self.writer.registry.set_policy(self.user_id, OWN)


async def live_through(processes: list[Process], history: list[tuple[int, str]]) -> int:
    """Lead a new user's breaker through a history, until all of it is stored."""
    user_id = next(USERS)
    for process in processes:
        await process.start(user_id)
    await live_on(processes, history)
    return user_id


async def live_on(processes: list[Process], history: list[tuple[int, str]]) -> None:
    for number, step in history:
        await processes[number].take(step)
    for process in processes:
        await process.send()
