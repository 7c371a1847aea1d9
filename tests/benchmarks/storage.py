"""What an outcome takes on disk: `python -m tests.benchmarks.storage`.

A million outcomes of a hundred thousand users are appended as the store does it, in batches of a thousand. One in ten is
a failure with its type and a message of 50 characters; each names its operation, and none has a trace id. Counted are the
day's partition with all its indexes, and the ledger with its own. Breakers' rows are not: they don't grow with the calls.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack

from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.migrating import upgrade
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import EVENTS_A_PORTION, Feed, Sender, Traffic, outcomes_alone
from tests.benchmarks.measuring import Bar, judge, show

# Of each index by its name in the parent, since a day's own is named by its columns.
_SIZES = """
SELECT coalesce(parent.relname, class.relname) AS name, pg_relation_size(class.oid) AS bytes
FROM pg_class AS class
LEFT JOIN pg_inherits ON inhrelid = class.oid
LEFT JOIN pg_class AS parent ON parent.oid = inhparent
LEFT JOIN pg_index ON indexrelid = class.oid
JOIN pg_class AS owner ON owner.oid = coalesce(indrelid, class.oid)
WHERE owner.relkind = 'r' AND (owner.relname LIKE 'breaker\\_outcomes\\_%' OR owner.relname = 'writer_batches')
"""
_COUNT = "SELECT count(*) FROM breaker_outcomes"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    arguments = parser.parse_args()
    with open_server(arguments) as database_url:
        sizes, count = asyncio.run(measure(database_url, arguments.events, arguments.users))
    each = {name: size / count for name, size in sizes.items() if size / count >= 0.005}
    show("bytes on disk", ["", "an outcome"], [[name, f"{size:.2f}"] for name, size in each.items()])
    return judge([Bar.at_most("an outcome with all that is kept of it", sum(each.values()), 175, " bytes")])


async def measure(database_url: str, events: int, users: int) -> tuple[dict[str, int], int]:
    """Append, and give the bytes of each table and index, and how many outcomes there are."""
    await upgrade(database_url)
    async with AsyncExitStack() as stack:
        feed = Feed(Traffic(users, failure_share=0.1))
        log = PostgresEventLog(database_url, feed.registry.surroundings.clock)
        stack.push_async_callback(log.close)
        await log.open()
        append = Sender(log).sending(feed, outcomes_alone)
        for _ in range(events // EVENTS_A_PORTION):
            await append()
        connection = await connect(database_url)
        stack.push_async_callback(connection.close)
        return await sizes(connection), await connection.fetchval(_COUNT)


async def sizes(connection: Connection) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in await connection.fetch(_SIZES):
        found[row["name"]] = found.get(row["name"], 0) + row["bytes"]
    return found


if __name__ == "__main__":
    sys.exit(main())
