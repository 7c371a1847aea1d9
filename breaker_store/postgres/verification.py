"""The proof that the record is whole: everything is checked, in one snapshot, while the log goes on.

What it can't prove: that a writer recorded what happened; and, without a head that was kept elsewhere, that nobody who
owns the database made the whole of it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from breaker_store.postgres.batch_checks import BatchReport, check_batches
from breaker_store.postgres.chain_checks import check_causes, check_chain, compare_head
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.gap_checks import check_gaps
from breaker_store.postgres.heads import Head, read_head, read_moment
from breaker_store.postgres.outcome_days import list_days, partitions_of
from breaker_store.postgres.snapshots import snapshot
from breaker_store.postgres.state_checks import check_states

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being checked, how much of it is done, and of how much; None if nobody knows."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and what is wrong.

    Attributes:
        transitions: of the chain, so without those that lost.
        kept_from: the day from which on outcomes are kept; what lacks earlier ones is not wrong. None if none is kept.
        head: to be kept elsewhere; of a record that is not whole, it names the record as it is.
        problems: how many were found; `findings` has the first ones.

    """

    batches: BatchReport
    transitions: int
    breakers: int
    kept_from: date | None
    head: Head
    problems: int
    findings: tuple[str, ...]


async def verify(
    database_url: str,
    expected: Head | None = None,
    on_progress: OnProgress = lambda _what, _done, _total: None,
) -> Verification:
    """Check positions, chain, every batch's digest, every breaker's row and every cause; and a head, if one is given.

    Raises:
        LogUnavailableError: the database can't be reached, or broke off.

    """
    findings = Findings()
    async with snapshot(database_url, "the check") as connection:
        chain = await check_chain(
            connection, findings, expected, lambda done: on_progress("transitions", done, None)
        )
        if expected is not None:
            await compare_head(connection, findings, chain, expected)
        batches = await check_batches(
            connection, findings, lambda done, total: on_progress("events", done, total)
        )
        await check_gaps(connection, findings)
        partitions = partitions_of(await list_days(connection))
        await check_causes(connection, findings, partitions.days)
        breakers = await check_states(
            connection,
            findings,
            partitions,
            lambda done, total: on_progress("breakers", done, total),
        )
        head = await read_head(connection, chain.position, chain.link, await read_moment(connection))
    return Verification(
        batches, chain.position, breakers, partitions.horizon, head, findings.count, tuple(findings.texts)
    )
