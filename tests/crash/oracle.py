"""Compares what was acknowledged with what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg

from tests.crash.child import BOTS, POLICY, USERS
from tests.crash.evidence import Acknowledgement, Evidence
from tests.crash.stored import complaints_about

AT_RISK_US = 250_000
"""How long before its process is killed something may have been acknowledged and be lost, where that is allowed.

It is one interval of 20 ms and one commit; when that has taken 200 ms, what waits is spooled, within another 20 ms.
"""

CALLS = frozenset({"success", "failure"})
REFUSALS = frozenset({"refusal"})
TRANSITIONS = frozenset({"transition"})

_OUTCOMES = """
SELECT writer_id, writer_seq, user_id, kind, count, coalesce(error_message, operation) AS name
FROM breaker_outcomes WHERE user_id BETWEEN $1 AND $2
"""
_TRANSITIONS = """
SELECT writer_id, writer_seq FROM breaker_transitions WHERE user_id BETWEEN $1 AND $2 AND position IS NOT NULL
"""
_REJECTED = 3

Identity = tuple[int, int]


@dataclass
class Verdict:
    """What came out.

    Attributes:
        acknowledged, stored: calls.
        at_risk: calls acknowledged and not stored, as is allowed.
        at_risk_us: how long before the end of its process the oldest of them was acknowledged.
        lost: acknowledged and not stored, against the promise.
        doubled: stored more than once.
        complaints: what else is wrong.

    """

    acknowledged: int = 0
    stored: int = 0
    at_risk: int = 0
    at_risk_us: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.complaints)


class Stored(NamedTuple):
    """What the database has of a run.

    Attributes:
        calls: what a call that was let through is stored as, by its name.
        refusals: how many there are, by user.
        chain: the transitions that won.

    """

    calls: dict[str, list[Identity]]
    refusals: Counter[int]
    chain: set[str]

    @classmethod
    async def read(cls, connection: asyncpg.Connection, first_user: int) -> Stored:
        users = (first_user, first_user + USERS - 1)
        stored = cls({}, Counter(), set())
        for writer_id, seq, user_id, kind, count, name in await connection.fetch(_OUTCOMES, *users):
            if kind == _REJECTED:
                stored.refusals[user_id] += count
            else:
                stored.calls.setdefault(name, []).append((writer_id, seq))
        stored.chain.update(f"{row[0]}-{row[1]}" for row in await connection.fetch(_TRANSITIONS, *users))
        return stored

    @property
    def call_count(self) -> int:
        return len(self.calls) + self.refusals.total()


class Oracle:
    """Hears the evidence of one run's processes, one after the other.

    at_risk: of what kinds the last moments may be lost.
    """

    def __init__(self, stored: Stored, at_risk: Collection[str] = ()) -> None:
        self._stored = stored
        self._at_risk = at_risk
        self._last_calls: dict[tuple[int, int], int] = {}
        self._refused: Counter[int] = Counter()
        self._refused_at_risk = 0
        self._out_of_force: dict[str, int] = {}
        self.verdict = Verdict(stored=stored.call_count)
        self.verdict.doubled += [name for name, found in stored.calls.items() if len(found) > 1]

    def hear(self, evidence: Evidence) -> None:
        hearing = _Hearing()
        for each in evidence.acknowledgements():
            self.verdict.acknowledged += 1
            self._last_calls[evidence.number, each.bot] = each.call_number
            forgiven = self._at_risk if evidence.age_us(each) < AT_RISK_US else ()
            self._look_for_transition(each, evidence, forgiven)
            if each.kind == "refusal":
                self._count_refusal(each, forgiven)
            else:
                self._look_up(each, evidence, hearing, forgiven)
        self.verdict.complaints += hearing.complaints

    def judge(self, processes: int) -> Verdict:
        """Say what came out, when all of them were heard."""
        verdict = self.verdict
        verdict.lost += [
            f"transition {id_} of process {number}" for id_, number in self._out_of_force.items()
        ]
        for user_id, count in self._refused.items():
            verdict.lost += [f"a refusal of user {user_id}"] * max(count - self._stored.refusals[user_id], 0)
        # Of each bot's last call nobody may have heard, since its process was killed in between.
        at_most = self._refused.total() + self._refused_at_risk + processes * BOTS
        verdict.doubled += ["a refusal"] * max(self._stored.refusals.total() - at_most, 0)
        verdict.complaints += [f"{name} is stored, and was never called" for name in self._invented()]
        return verdict

    def _look_for_transition(
        self, each: Acknowledgement, evidence: Evidence, forgiven: Collection[str]
    ) -> None:
        seen = each.transition
        if seen is not None and seen not in self._stored.chain and "transition" not in forgiven:
            self._out_of_force.setdefault(seen, evidence.number)

    def _count_refusal(self, each: Acknowledgement, forgiven: Collection[str]) -> None:
        if "refusal" in forgiven:
            self._refused_at_risk += 1
        else:
            self._refused[each.user_id] += 1

    def _look_up(
        self, each: Acknowledgement, evidence: Evidence, hearing: _Hearing, forgiven: Collection[str]
    ) -> None:
        name = evidence.name(each)
        identities = self._stored.calls.get(name)
        if identities is not None:
            hearing.take(name, each.bot, identities[0])
            return
        hearing.incomplete.add(each.bot)
        if each.kind in forgiven:
            self.verdict.at_risk += 1
            self.verdict.at_risk_us = max(self.verdict.at_risk_us, evidence.age_us(each))
        else:
            self.verdict.lost.append(name)

    def _invented(self) -> Iterator[str]:
        for name in self._stored.calls:
            process, bot, call_number = map(int, name.split("."))
            if call_number > self._last_calls.get((process, bot), 0) + 1:
                yield name


@dataclass
class _Hearing:
    """One process's calls, compared so far: a bot's are stored in its order, and up to one of them."""

    last: dict[int, Identity] = field(default_factory=dict)
    incomplete: set[int] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    writers: set[int] = field(default_factory=set)

    def take(self, name: str, bot: int, identity: Identity) -> None:
        if bot in self.incomplete:
            self.complaints.append(f"{name} is stored, and a call before it is not")
            self.incomplete.remove(bot)  # that is enough
        if bot in self.last and self.last[bot][1] >= identity[1]:
            self.complaints.append(f"{name} is stored as {identity}, after {self.last[bot]}")
        if self.writers - {identity[0]}:
            self.complaints.append(f"{name} is stored as {identity}, and the process was {self.writers}")
        self.writers.add(identity[0])
        self.last[bot] = identity


async def compare(
    database_url: str, first_user: int, heard: Sequence[Evidence], at_risk: Collection[str]
) -> Verdict:
    """Compare all that was heard with all that is stored."""
    connection = await asyncpg.connect(database_url)
    try:
        oracle = Oracle(await Stored.read(connection, first_user), at_risk)
        for evidence in heard:
            oracle.hear(evidence)
        verdict = oracle.judge(len(heard))
        verdict.complaints += await complaints_about(connection, POLICY)
    finally:
        await connection.close()
    return verdict
