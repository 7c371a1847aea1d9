"""How long it takes to prove that the record is whole: `python -m tests.benchmarks.verify`.

One client and one server process work at it, and the whole may have one core: `taskset -c 0` before it says how that is.
The floor is what it costs to read the same bytes in the order in which they lie, by COPY, and to hash them. Memory is
the client's at its highest, for the whole log and for a tenth of it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import resource
import sys
import time
from typing import Final

from breaker_store.postgres.codec import OUTCOME_COLUMNS
from breaker_store.postgres.connecting import connect
from breaker_store.postgres.verification import Verification, verify
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.measuring import Bar, judge, show
from tests.benchmarks.sealed_filling import find_or_fill_sealed

EVENTS: Final = 10_000_000
BREAKERS: Final = 100_000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    # A process of its own for each: what was used at the highest can't be forgotten again.
    fresh = multiprocessing.get_context("spawn")
    with open_server(parser.parse_args()) as server_url, fresh.Pool(1, maxtasksperchild=1) as pool:
        urls = [
            asyncio.run(find_or_fill_sealed(server_url, events, BREAKERS))
            for events in (EVENTS // 10, EVENTS)
        ]
        floor = pool.apply(run_floor, (urls[1],))
        (_, _, little), (found, seconds, much) = (pool.apply(run_check, (url,)) for url in urls)
    events = found.batches.events
    rows = [
        ["reading and hashing", f"{events / floor:,.0f}", "1.00", ""],
        ["verify", f"{events / seconds:,.0f}", f"{seconds / floor:.2f}", f"{much:,.0f} MB"],
    ]
    show(
        f"{events:,} events, {found.transitions:,} transitions",
        ["", "events/s", "of the floor's time", "memory"],
        rows,
    )
    assert found.problems == 0, found.findings
    return judge(
        [
            Bar.at_least("verify", events / seconds, 500_000, " events/s"),
            Bar.at_most("memory, of what a tenth of the log needs", much / little, 1.5),
        ]
    )


def run_check(database_url: str) -> tuple[Verification, float, float]:
    started = time.perf_counter()
    found = asyncio.run(verify(database_url))
    seconds = time.perf_counter() - started
    return found, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_floor(database_url: str) -> float:
    started = time.perf_counter()
    asyncio.run(_read_and_hash(database_url))
    return time.perf_counter() - started


async def _read_and_hash(database_url: str) -> None:
    digest = hashlib.sha256()

    async def take(data: bytes) -> None:
        digest.update(data)

    connection = await connect(database_url)
    query = f"SELECT {', '.join(OUTCOME_COLUMNS)} FROM breaker_outcomes"
    await connection.copy_from_query(query, output=take, format="binary", timeout=600)
    await connection.close()


if __name__ == "__main__":
    sys.exit(main())
