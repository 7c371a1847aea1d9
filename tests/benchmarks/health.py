"""What health costs over HTTP: `python -m tests.benchmarks.health --data-dir DIR`.

The fleet has 100,000 bots, of which one in a hundred is not closed; the server, `breaker-store serve`, rolls up and judges
it meanwhile, as it always does. A thousand bots have 30 days of hourly roll-ups, each with calls in 27 buckets of the
histogram, and some minutes; the ledger has a million batches. Each bot that is asked for is another one, by chance.

The first run fills the database; in the same folder the next one finds it.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import itertools
import sys

from breaker_store.postgres.connecting import Connection
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.filling import add_fleet, find_or_make, tidy
from tests.benchmarks.http import OURS, Client, by_chance, serving, show_times
from tests.benchmarks.measuring import Bar, judge, take_turns

PREFIX = "/api/admin/system/bots"
BOTS = 100_000
BOTS_WITH_HISTORY = 1_000
BATCHES = 1_000_000
HOURS = 720

ROUNDS = 7
REQUESTS_A_ROUND = 300

FLEET, FLEET_HISTORY = "the fleet", "30 days of hours of the fleet"
BOT, BOT_HISTORY = "one bot", "30 days of hours of one bot"

_PARTITIONS = "SELECT ensure_rollup_partitions((now() - interval '31 days')::date, now()::date)"

_HISTOGRAM = """
(SELECT array_agg((bucket << 40) + 4 ORDER BY bucket) AS durations FROM generate_series(136::bigint, 162) AS bucket)
"""

_HOURS = f"""
INSERT INTO hour_rollups (
    started_at, user_id, drops, successes, failures, refusals, duration_us, timed_calls, p50_us, p95_us, p99_us, durations,
    error_types
)
SELECT date_trunc('hour', now(), 'UTC') - number * interval '1 hour', user_id, 0, 98, 10, 3, 40000000, 108, 441234.56,
    1048576.125, 1199999.99, durations,
    '{{"TimeoutError": 8, "NetworkError": 2}}'
FROM generate_series(1, {HOURS}) AS number, generate_series(0, $1::bigint - 1) AS user_id, {_HISTOGRAM} AS histogram
"""

_MINUTES = f"""
INSERT INTO minute_rollups (
    started_at, user_id, drops, successes, failures, refusals, duration_us, weighted_us, weight_left, first_duration_us,
    failure_run, durations
)
SELECT date_trunc('minute', now()) - number * interval '1 minute', user_id, 0, 98, 10, 3, 40000000, 370000, 0, 200000, 0,
    durations
FROM generate_series(1, 60) AS number, generate_series(0, $1::bigint - 1) AS user_id, {_HISTOGRAM} AS histogram
"""

_FLEET_HOURS = """
INSERT INTO fleet_rollups (
    bucket, started_at, drops, bots, successes, failures, refusals, duration_us, timed_calls, p50_us, p95_us, p99_us,
    durations, error_types
)
SELECT 1, started_at, 0, count(*), sum(successes), sum(failures), sum(refusals), sum(duration_us), sum(timed_calls),
    min(p50_us), min(p95_us), min(p99_us), min(durations),
    '{"TimeoutError": 8000, "NetworkError": 2000}'
FROM hour_rollups
GROUP BY started_at
"""

_LEDGER = """
INSERT INTO writer_batches (
    writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, earliest, latest
)
SELECT number, 1, 1, 1, 1, 2, 0, sha256('any'), now() - interval '1 day', now() - interval '1 day'
FROM generate_series(1, $1::bigint) AS number
"""

_ALL_IS_READ = """
UPDATE rollup_progress SET snapshot = pg_current_snapshot(), server_id = (SELECT system_identifier FROM pg_control_system())
"""

_PLAIN_TABLES = ("writer_batches", "hour_rollups", "minute_rollups", "fleet_rollups")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    arguments = parser.parse_args()
    with open_server(arguments) as server_url, Client() as client:
        return judge(asyncio.run(measure(server_url, client)))


async def measure(server_url: str, client: Client) -> list[Bar]:
    paths = {
        FLEET: itertools.repeat(f"{PREFIX}/health"),
        FLEET_HISTORY: itertools.repeat(f"{PREFIX}/health/history?since={since()}"),
        BOT: (f"{PREFIX}/{user_id}/health" for user_id in by_chance(range(BOTS_WITH_HISTORY))),
        BOT_HISTORY: (
            f"{PREFIX}/{user_id}/health/history?since={since()}"
            for user_id in by_chance(range(BOTS_WITH_HISTORY))
        ),
    }
    with serving(OURS, await find_or_make(server_url, f"health_{BOTS}", fill)) as url:
        rounds_of = {name: client.timing(name, url, each, REQUESTS_A_ROUND) for name, each in paths.items()}
        await take_turns(rounds_of, ROUNDS)
    show_times("health, one connection", client, rounds_of)
    return [
        Bar.at_most(f"health of {BOTS:,} bots, p99", client.percentile_ms(FLEET, 99), 50, " ms"),
        Bar.at_most(f"{BOT_HISTORY}, p99", client.percentile_ms(BOT_HISTORY, 99), 10, " ms"),
    ]


def since() -> str:
    return f"{dt.datetime.now(dt.UTC) - dt.timedelta(hours=HOURS):%Y-%m-%dT%H:%M:%SZ}"


async def fill(_database_url: str, connection: Connection) -> None:
    await add_fleet(connection, BOTS)
    await connection.execute(_PARTITIONS)
    for statement in (_HOURS, _MINUTES):
        await connection.execute(statement, BOTS_WITH_HISTORY, timeout=600)
    await connection.execute(_FLEET_HOURS, timeout=600)
    await connection.execute(_LEDGER, BATCHES, timeout=600)
    await connection.execute(_ALL_IS_READ)
    for table in _PLAIN_TABLES:
        await connection.execute(f"VACUUM ANALYZE {table}", timeout=300)
    await tidy(connection)


if __name__ == "__main__":
    sys.exit(main())
