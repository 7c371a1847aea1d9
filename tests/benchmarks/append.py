"""What durable appending costs: `python -m tests.benchmarks.append`.

Batches of a thousand outcomes go into the real tables, by turns as raw COPY and as the store does it, on the same
database: one process, one transaction a batch, synchronous_commit on. Of the calls, one in ten fails; each such run of
failures also changes its breaker's row twice, when it begins and when it ends. "Outcomes alone" leaves that out, as
COPY does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack

from breaker_store import BreakerStore
from breaker_store.postgres.connecting import connect
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.migrating import upgrade
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import (
    EVENTS_A_PORTION,
    Feed,
    Sender,
    Traffic,
    copying_bytes,
    copying_tuples,
    outcomes_alone,
    recording,
)
from tests.benchmarks.measuring import Bar, Rounds, judge, show, take_turns

ROUNDS = 12
TRAFFIC = Traffic(users=10_000, failure_share=0.1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    with open_server(parser.parse_args()) as database_url:
        rounds = asyncio.run(measure(database_url))
    show_rounds(rounds)
    return judge([bar for name in ("outcomes alone", "store, from breakers") for bar in bars(rounds, name)])


def bars(rounds: Rounds, name: str) -> list[Bar]:
    return [
        Bar.at_least(f"{name}, of COPY of tuples", rounds.ratio("COPY of tuples", name), 0.85),
        Bar.at_least(name, EVENTS_A_PORTION / rounds.median(name), 60_000, " events/s"),
    ]


async def measure(database_url: str) -> Rounds:
    await upgrade(database_url)
    async with AsyncExitStack() as stack:
        connection = await connect(database_url)
        stack.push_async_callback(connection.close)
        feed = Feed(TRAFFIC)
        log = PostgresEventLog(database_url, feed.registry.surroundings.clock)
        stack.push_async_callback(log.close)
        await log.open()
        store = await stack.enter_async_context(BreakerStore.open(database_url=database_url))
        sender = Sender(log)
        return await take_turns(
            {
                "COPY of bytes": copying_bytes(connection, feed),
                "COPY of tuples": copying_tuples(connection, feed),
                "outcomes alone": sender.sending(feed, outcomes_alone),
                "with breakers' rows": sender.sending(feed, lambda batch: batch),
                "store, from breakers": recording(store, TRAFFIC),
            },
            ROUNDS,
        )


def show_rounds(rounds: Rounds) -> None:
    rows = [
        [
            name,
            f"{EVENTS_A_PORTION / rounds.median(name):,.0f}",
            f"{rounds.ratio('COPY of tuples', name):.2f}",
            f"{rounds.ratio('COPY of bytes', name):.2f}",
        ]
        for name in rounds.figures
    ]
    show("durable append, batches of 1,000", ["", "events/s", "of COPY of tuples", "of COPY of bytes"], rows)


if __name__ == "__main__":
    sys.exit(main())
