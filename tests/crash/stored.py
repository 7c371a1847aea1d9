"""What must hold of any database and any spool, whatever has happened to those who wrote into them."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from breaker_store import Policy
from breaker_store.postgres.batch_checks import check_batches
from breaker_store.postgres.chain_checks import ChainCheck, check_chain
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.state_checks import find_contradictions
from tests.postgres.stored import contradicting_batches

_POSITIONS = "SELECT count(*), max(position), (SELECT last FROM log_position) FROM breaker_transitions WHERE position > 0"

_TWICE = """
SELECT writer_id, writer_seq, count(*) FROM breaker_events GROUP BY writer_id, writer_seq HAVING count(*) > 1
"""

_BROKEN_CHAIN = """
SELECT writer_id, batch_no FROM (
    SELECT writer_id, batch_no, first_seq, previous_digest,
        lag(batch_no, 1, 0::bigint) OVER writers AS batch_before,
        lag(last_seq, 1, 0::bigint) OVER writers AS seq_before,
        lag(digest) OVER writers AS digest_before
    FROM writer_batches
    WINDOW writers AS (PARTITION BY writer_id ORDER BY batch_no)
) AS batches
WHERE batch_no <> batch_before + 1 OR first_seq <= seq_before OR previous_digest IS DISTINCT FROM digest_before
"""

_UNLEDGERED = """
SELECT count(*) - (SELECT coalesce(sum(event_count), 0) FROM writer_batches) FROM breaker_events
"""

_IS_OWNER = "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = 'breaker_events'::regclass"


def left_files(spool_dir: Path) -> list[Path]:
    """List what is in a spool when it should be empty."""
    return [path for path in spool_dir.rglob("*") if path.is_file() and path.name != "lock"]


async def complaints_about(connection: asyncpg.Connection, policy: Policy) -> list[str]:
    """Say what contradicts itself: identities, positions, the ledger, breakers' rows."""
    wrong = [f"{row[2]} events are {row[0]}-{row[1]}" for row in await connection.fetch(_TWICE)]
    numbered, highest, last = await connection.fetchrow(_POSITIONS)
    if not numbered == (highest or 0) == last:
        wrong.append(f"{numbered} positions go up to {highest}, and the last given is {last}")
    broken = await connection.fetch(_BROKEN_CHAIN)
    wrong += [f"batch {row[1]} of writer {row[0]} does not follow the one before it" for row in broken]
    if more := await connection.fetchval(_UNLEDGERED):
        wrong.append(f"there are {more} events more than the ledger tells of")
    wrong += [
        f"batch {number} of writer {writer} is not what was sent"
        for writer, number in await _altered(connection)
    ]
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        contradictions = [each async for each in find_contradictions(connection, policy)]
        findings = Findings()
        await check_chain(connection, findings, ChainCheck(findings, None), lambda _done: None)
        await check_batches(connection, findings, lambda _done, _total: None)
    wrong += findings.texts
    wrong += [
        f"the row of breaker {each.user_id} says {each.stored}, its events {each.folded}"
        for each in contradictions
    ]
    return wrong


async def _altered(connection: asyncpg.Connection) -> list[tuple[int, int]]:
    """Look at every batch; the owner, of a minute's batches, with an index that makes it bearable."""
    indexing = connection.transaction()
    await indexing.start()
    try:
        if await connection.fetchval(_IS_OWNER):
            for table in ("breaker_outcomes", "breaker_transitions"):
                await connection.execute(f"CREATE INDEX ON {table} (writer_id, writer_seq)")
            await connection.execute("ANALYZE breaker_outcomes; ANALYZE breaker_transitions")
        return await contradicting_batches(connection)
    finally:
        await indexing.rollback()
