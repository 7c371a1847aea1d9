"""Rounds in which a process under load, or its Postgres, is killed at a random moment and comes back."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from breaker_store.postgres.migrating import upgrade
from tests.crash.child import Life
from tests.crash.evidence import Evidence
from tests.crash.oracle import CALLS, REFUSALS, TRANSITIONS, Verdict, compare
from tests.crash.process import Child
from tests.crash.server import KillableServer
from tests.crash.stored import left_files

PROGRESS = "SELECT count(*), max(recorded_at) FROM writer_batches"
PROGRESS_SECONDS = 60.0


class NoProgressError(Exception):
    """Nothing was stored any more."""


@dataclass
class Run:
    """A chain of processes, each with the database and the spool directory of the one before.

    Attributes:
        folder: for the spool and for what the processes have to say.
        has_spool: whether there is a spool.

    """

    database_url: str
    folder: Path
    durability: str
    has_spool: bool = True
    heard: list[Evidence] = field(default_factory=list)
    first_user: int = field(default_factory=lambda: random.SystemRandom().randrange(2**62))
    _child: Child | None = None

    @property
    def spool_dir(self) -> Path:
        return self.folder / "spool"

    @property
    def log_file(self) -> Path:
        return self.folder / "processes.log"

    @property
    def acknowledged(self) -> int:
        return sum(evidence.count for evidence in self.heard)

    def migrate(self) -> None:
        asyncio.run(upgrade(self.database_url))

    def begin(self) -> Child:
        """Start a process, and don't wait for it."""
        life = Life(
            number=len(self.heard) + 1,
            database_url=self.database_url,
            spool_dir=self.spool_dir if self.has_spool else None,
            durability=self.durability,
            first_user=self.first_user,
            seed=random.getrandbits(64),
            log_file=self.log_file,
        )
        self._child = Child(life)
        self.heard.append(self._child.evidence)
        return self._child

    def begin_to_work(self) -> Child:
        """Start a process, and wait until it has worked for a moment."""
        child = self.begin()
        child.hear_opened()
        child.hear(random.uniform(0.05, 0.5))
        return child

    def leave_nobody(self) -> None:
        """End what still works, when a run is broken off."""
        if self._child is not None:
            self._child.make_sure_that_it_is_gone()

    def judge(self, owner_url: str) -> Verdict:
        """Compare what was acknowledged with what is stored, and look for what was left.

        owner_url: the same database's, for an index that makes it bearable.
        """
        verdict = asyncio.run(compare(owner_url, self.first_user, self.heard, self._at_risk))
        verdict.complaints += [f"{path} was left" for path in left_files(self.spool_dir)]
        return verdict

    @property
    def _at_risk(self) -> frozenset[str]:
        """Say of what kinds a killed process may lose its last moments.

        A call that waits for its commit may see, when it returns, what another has just begun and not written down.
        Nor is a commit waited for by those who are refused: without a spool nothing holds what they were told.
        """
        if self.durability == "behind":
            return CALLS | REFUSALS | TRANSITIONS
        if self.durability == "journaled":
            return frozenset()
        return TRANSITIONS if self.has_spool else REFUSALS | TRANSITIONS


def kill_the_process(run: Run) -> None:
    """Kill a process at work; one in five before its store is open, or just then."""
    if random.random() < 0.2:
        child = run.begin()
        child.hear(random.uniform(0, 0.15))
    else:
        child = run.begin_to_work()
    child.kill()


def end_the_process(run: Run) -> None:
    """Have a process end in order: it stores what waits, or spools it."""
    run.begin_to_work().end(signal.SIGTERM)


def kill_the_server(server: KillableServer, child: Child) -> None:
    """Kill the server under a process, and start it again; return when more is stored."""
    child.hear(random.uniform(0.05, 0.5))
    server.kill(random.choice([signal.SIGKILL, signal.SIGQUIT]))
    child.hear(random.choice([0.0, random.uniform(0, 0.3), random.uniform(0.3, 1)]))
    server.start_again()
    _wait_for_progress(server, child)


def kill_both(run: Run, server: KillableServer) -> None:
    """Kill the server and a process that works on it, one soon after the other, and start the server again."""
    child = run.begin_to_work()
    server.kill(random.choice([signal.SIGKILL, signal.SIGQUIT]))
    child.hear(random.choice([0.0, random.uniform(0, 0.5)]))
    child.kill()
    server.start_again()


def _wait_for_progress(server: KillableServer, child: Child) -> None:
    deadline = time.monotonic() + PROGRESS_SECONDS
    with psycopg.connect(server.url, autocommit=True) as connection:
        found = connection.execute(PROGRESS).fetchone()
        while connection.execute(PROGRESS).fetchone() == found:
            child.hear(0.01)
            if time.monotonic() > deadline:
                raise NoProgressError(f"nothing was stored for {PROGRESS_SECONDS} s after Postgres was back")
