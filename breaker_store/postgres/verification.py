"""The proof that the record is whole: everything is checked, in one snapshot, while the log goes on.

What it can't prove: that a writer recorded what happened; and, without a head that was kept elsewhere, that nobody who
owns the database made the whole of it anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TypeAlias

import asyncpg

from breaker_store.postgres.batch_checks import BatchReport, check_batches
from breaker_store.postgres.chain_checks import ChainCheck, check_causes, check_chain, compare_head
from breaker_store.postgres.connecting import Connection, described
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.gap_checks import check_gaps
from breaker_store.postgres.heads import Head, read_head, read_moment
from breaker_store.postgres.outcome_days import dropped_days_of, list_days
from breaker_store.postgres.row_checks import check_rows
from breaker_store.postgres.snapshots import snapshot
from breaker_store.postgres.state_checks import check_states

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being checked, how much of it is done, and of how much; None if nobody knows."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and what is wrong.

    Attributes:
        transitions: of the chain, so without those that lost.
        kept_from: the day after the last one that retention dropped; None if it dropped none.
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
    chain, batches = ChainCheck(findings, expected), BatchReport()
    async with snapshot(database_url, "the check") as connection:
        looking = partial(_looking, connection, findings)
        async with looking("transitions"):
            await check_chain(
                connection, findings, chain, lambda done: on_progress("transitions", done, None)
            )
        if expected is not None:
            await compare_head(connection, findings, chain, expected)
        async with looking("batches"):
            batches = await check_batches(
                connection, findings, lambda done, total: on_progress("events", done, total)
            )
        await check_gaps(connection, findings)
        dropped = dropped_days_of(await list_days(connection))
        async with looking("causes"):
            await check_causes(connection, findings, dropped.days)
        breakers = await check_rows(connection, findings)
        async with looking("breakers"):
            await check_states(
                connection, findings, dropped, lambda done, total: on_progress("breakers", done, total)
            )
        head = await read_head(connection, chain.position, chain.link, await read_moment(connection))
    return Verification(
        batches, chain.position, breakers, dropped.kept_from, head, findings.count, tuple(findings.texts)
    )


@asynccontextmanager
async def _looking(connection: Connection, findings: Findings, what: str) -> AsyncIterator[None]:
    """Go on with what comes after a check that met something which no version writes."""
    await connection.execute("SAVEPOINT looking")
    try:
        yield
    except (asyncpg.DataError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        await connection.execute("ROLLBACK TO SAVEPOINT looking")
        findings.add(
            f"not all {what} were checked: something is stored that no version writes ({described(error)})"
        )
