"""The oracle finds what is lost, doubled, out of order or made up: a proof that can't fail would prove nothing."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import asyncpg
import pytest

from breaker_store import BreakerStore
from tests.crash.child import BOTS, OPENED, POLICY, SickError
from tests.crash.evidence import Evidence
from tests.crash.oracle import AT_RISK_US, CALLS, REFUSALS, TRANSITIONS, Oracle, Stored, Verdict
from tests.crash.stored import complaints_about

USER = 7
ALL = CALLS | REFUSALS | TRANSITIONS
WRITER, OTHER_WRITER = 11, 12
KILLED_US = 10_000_000
LONG_AGO_US = KILLED_US - AT_RISK_US - 1


def heard(*lines: str) -> Evidence:
    """Make what the first process acknowledged; each line tells kind, bot, call number, time, user and transition."""
    said = "".join(f"{line}\n" for line in (OPENED, *lines))
    return Evidence(1, bytearray(said.encode()), KILLED_US)


def success(bot: int, number: int, at_us: int = LONG_AGO_US, transition: str = "None") -> str:
    return f"success {bot} {number} {at_us} {USER} {transition}"


def refusal(number: int, at_us: int = LONG_AGO_US) -> str:
    return f"refusal 0 {number} {at_us} {USER} None"


def stored(*, refusals: int = 0, chain: tuple[str, ...] = (), **calls: list[tuple[int, int]]) -> Stored:
    """Make what is stored; calls by their names, `c1_0_5` for `1.0.5`."""
    named = {name[1:].replace("_", "."): identities for name, identities in calls.items()}
    return Stored(named, Counter({USER: refusals}), set(chain))


def judge(found: Stored, evidence: Evidence, at_risk: frozenset[str] = frozenset()) -> Verdict:
    oracle = Oracle(found, at_risk)
    oracle.hear(evidence)
    return oracle.judge(1)


def test_what_is_stored_as_it_was_acknowledged_is_fine() -> None:
    found = stored(
        c1_0_1=[(WRITER, 1)], c1_1_1=[(WRITER, 2)], c1_0_2=[(WRITER, 3)], refusals=1, chain=("11-4",)
    )
    verdict = judge(found, heard(success(0, 1), success(1, 1), success(0, 2, transition="11-4"), refusal(3)))
    assert verdict == Verdict(acknowledged=4, stored=4)
    assert verdict.is_clean


def test_what_is_not_stored_is_lost() -> None:
    verdict = judge(stored(c1_0_1=[(WRITER, 1)]), heard(success(0, 1), success(0, 2), refusal(3)))
    assert verdict.lost == ["1.0.2", f"a refusal of user {USER}"]
    assert not verdict.is_clean


def test_what_was_acknowledged_behind_just_before_the_end_may_be_gone() -> None:
    late_us = KILLED_US - AT_RISK_US + 1
    evidence = heard(success(0, 1), success(0, 2, late_us, "11-9"), refusal(3, late_us))
    verdict = judge(stored(c1_0_1=[(WRITER, 1)]), evidence, ALL)
    assert (verdict.is_clean, verdict.at_risk) == (True, 1)


def test_what_was_acknowledged_behind_long_before_the_end_is_lost() -> None:
    assert judge(stored(), heard(success(0, 1)), ALL).lost == ["1.0.1"]


def test_a_call_that_waited_for_its_commit_is_never_at_risk_and_a_refusal_beside_it_is() -> None:
    verdict = judge(stored(), heard(success(0, 1, KILLED_US), refusal(2, KILLED_US)), REFUSALS)
    assert verdict.lost == ["1.0.1"]


def test_what_is_stored_twice_is_doubled() -> None:
    verdict = judge(stored(c1_0_1=[(WRITER, 1), (WRITER, 2)]), heard(success(0, 1)))
    assert verdict.doubled == ["1.0.1"]


def test_refusals_that_nobody_can_have_had_are_doubled() -> None:
    assert judge(stored(refusals=1 + BOTS), heard(refusal(1))).is_clean
    assert judge(stored(refusals=2 + BOTS), heard(refusal(1))).doubled == ["a refusal"]


@pytest.mark.parametrize(
    "second", [(WRITER, 1), (OTHER_WRITER, 6)], ids=["in another order", "by another writer"]
)
def test_a_bots_calls_are_stored_in_its_order_by_one_writer(second: tuple[int, int]) -> None:
    verdict = judge(stored(c1_0_1=[(WRITER, 5)], c1_0_2=[second]), heard(success(0, 1), success(0, 2)))
    assert len(verdict.complaints) == 1


def test_what_is_stored_after_something_that_is_gone_is_wrong_even_behind() -> None:
    evidence = heard(success(0, 1, KILLED_US), success(0, 2, KILLED_US))
    verdict = judge(stored(c1_0_2=[(WRITER, 2)]), evidence, ALL)
    assert verdict.complaints == ["1.0.2 is stored, and a call before it is not"]


def test_a_bots_next_call_may_be_stored_though_nobody_heard_of_it_and_no_other() -> None:
    found = stored(c1_0_1=[(WRITER, 1)], c1_0_2=[(WRITER, 2)], c1_0_3=[(WRITER, 3)])
    assert judge(found, heard(success(0, 1))).complaints == ["1.0.3 is stored, and was never called"]


def test_a_transition_that_was_seen_and_is_not_in_force_is_lost() -> None:
    verdict = judge(stored(c1_0_1=[(WRITER, 2)]), heard(success(0, 1, transition="11-1")))
    assert verdict.lost == ["transition 11-1 of process 1"]


WITHOUT_PROTECTION = """
ALTER TABLE breaker_events DISABLE TRIGGER USER;
ALTER TABLE writer_batches DISABLE TRIGGER USER;
"""

CORRUPTIONS = {
    "an event was taken out": "DELETE FROM breaker_outcomes WHERE writer_seq = 2",
    "an event is there twice": "INSERT INTO breaker_outcomes SELECT * FROM breaker_outcomes WHERE writer_seq = 1",
    "an event was altered": "UPDATE breaker_outcomes SET duration_us = duration_us + 1 WHERE writer_seq = 1",
    "a position was left out": "UPDATE breaker_transitions SET position = position + 1",
    "the last position is wrong": "UPDATE log_position SET last = last + 1",
    "a batch was taken out": "DELETE FROM writer_batches WHERE batch_no = 1",
    "the chain of batches is broken": "UPDATE writer_batches SET digest = sha256('other') WHERE batch_no = 1",
    "a breaker's row is wrong": "UPDATE breaker_states SET state = 0, version = version + 1",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
async def test_a_database_that_contradicts_itself_is_complained_of(
    database_url: str, owner: asyncpg.Connection, corruption: str
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=POLICY) as store:
        for _ in range(2):
            await fail(store)
            await store.flush()
        await fail(store)
    assert await complaints_about(owner, POLICY) == []
    await owner.execute(WITHOUT_PROTECTION)
    await owner.execute(corruption)
    assert await complaints_about(owner, POLICY) != []


async def fail(store: BreakerStore) -> None:
    async def answer() -> None:
        raise SickError

    with suppress(SickError):
        await store.registry.get_breaker(USER).call(answer)
