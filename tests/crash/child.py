"""A process under load: calls of several users, each acknowledged to the outside as soon as it has returned."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from breaker_store import BreakerStore, CircuitBreaker, CircuitBreakerOpenError, NotCommittedError, Policy

# Imported when a store is opened, which is to be a matter of milliseconds here.
from breaker_store.postgres import migrating as _migrating  # noqa: F401

POLICY = Policy(failure_threshold=3, timeout_seconds=0.05, success_threshold=2, half_open_max_calls=2)
BOTS = 8
USERS = 12
OPENED = "opened"


class SickError(Exception):
    """What a sick service brings about."""


@dataclass(frozen=True)
class Life:
    """What a process is to do.

    Attributes:
        number: which of a run's processes it is.
        first_user: the users have this number and the following ones.
        seed: of what it draws.
        log_file: where it says what it has to say.

    """

    number: int
    database_url: str
    spool_dir: Path | None
    durability: str
    first_user: int
    seed: int
    log_file: Path

    def live(self, acknowledge_to: int) -> None:
        """Call until the process is ended, and acknowledge to a pipe."""
        logging.basicConfig(
            filename=self.log_file, format=f"%(asctime)s {self.number} %(message)s", force=True
        )
        random.seed(self.seed)
        asyncio.run(_work(self, acknowledge_to))


async def _work(life: Life, acknowledge_to: int) -> None:
    async with BreakerStore.open(
        database_url=life.database_url, policy=POLICY, spool_dir=life.spool_dir, durability=life.durability
    ) as store:
        os.write(acknowledge_to, f"{OPENED}\n".encode())
        async with asyncio.TaskGroup() as bots:
            for number in range(BOTS):
                bots.create_task(_Bot(life, store, number, acknowledge_to).run())


@dataclass(frozen=True)
class _Bot:
    """One of those who call at the same time, each call after the other, all of them for the same users."""

    life: Life
    store: BreakerStore
    number: int
    acknowledge_to: int

    async def run(self) -> None:
        for call_number in count(1):
            await asyncio.sleep(_pause_seconds())
            user_id = self.life.first_user + random.randrange(USERS)
            breaker = self.store.registry.get_breaker(user_id)
            kind = await self._call(breaker, f"{self.life.number}.{self.number}.{call_number}")
            if kind is not None:
                self._acknowledge(kind, call_number, breaker)

    async def _call(self, breaker: CircuitBreaker, name: str) -> str | None:
        try:
            await breaker.call(_service(name, breaker.user_id or 0))
        except SickError as error:
            return None if hasattr(error, "__notes__") else "failure"  # a note says that it may not be stored
        except CircuitBreakerOpenError:
            return "refusal"
        except NotCommittedError:
            return None
        return "success"

    def _acknowledge(self, kind: str, call_number: int, breaker: CircuitBreaker) -> None:
        """Tell what has returned, when, and of which user's transition that was seen before it nobody may lose track."""
        now_us = time.monotonic_ns() // 1_000
        line = (
            f"{kind} {self.number} {call_number} {now_us} {breaker.user_id} {breaker.state.last_transition}\n"
        )
        os.write(self.acknowledge_to, line.encode())


def _service(name: str, user_id: int) -> Callable[[], Awaitable[None]]:
    """Make what is called: every third user's is sick half of the time, and the others' seldom."""

    async def answer() -> None:
        if random.random() < 0.3:
            await asyncio.sleep(random.expovariate(1_000))
        if random.random() < (0.5 if user_id % 3 == 0 else 0.1):
            answer.__name__ = "answer"
            raise SickError(name)

    answer.__name__ = name
    return answer


def _pause_seconds() -> float:
    """Draw a pause: none, some milliseconds, or long enough for everything to be stored in between."""
    mood = random.random()
    if mood < 0.3:
        return 0.0
    return random.expovariate(250) if mood < 0.9 else random.uniform(0, 0.03)
