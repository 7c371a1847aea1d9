"""What the admin API costs over HTTP: `python -m tests.benchmarks.http --data-dir DIR`.

The server is `breaker-store serve`, in a process of its own and with one worker; the client is another process. There
are two databases, of ten million events and of one million, both in thirty daily partitions. In both the same users
have the same histories, of two hundred events and of three. Each answer is of another user, by chance.

Throughput is compared with a route written by hand, FastAPI with asyncpg's pool and a Pydantic response model, that gives
the same answer to the same query and is served in the same way: see `http_peer`. All of it shares the machine's
processors with Postgres and the client.

The first run fills the databases, for minutes; in the same folder the next one finds them.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import multiprocessing
import random
import re
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Self

from breaker_store.core.access import Role
from breaker_store.postgres.access_tokens import create_token
from breaker_store.postgres.connecting import connect
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import Timed
from tests.benchmarks.filling import (
    SPARSE_USERS,
    TRIPPED_USERS,
    find_or_fill_histories,
    find_or_fill_states,
)
from tests.benchmarks.http_peer import PREFIX
from tests.benchmarks.measuring import Bar, console, judge, percentile, show, take_turns
from tests.benchmarks.requesting import Asked, ask

PARTS = ("page", "summary", "why", "instant", "throughput", "sign-in")
MANY_EVENTS, FEW_EVENTS = 10_000_000, 1_000_000
BREAKERS = 100_000
SUMMARIES = (100_000, 1_000_000)

ROUNDS = 7
REQUESTS_A_ROUND = 1_000
SHORT_ROUNDS = 60
SHORT_REQUESTS_A_ROUND = 100
SUMMARIES_A_ROUND = 300
EXPLANATIONS_A_ROUND = 50
SUMMARIES_AT_AN_INSTANT_A_ROUND = 3
AT_ONCE = 16
REQUESTS_AT_ONCE_A_ROUND = 4_000

NANOSECONDS_IN_MILLISECOND = 1_000_000

OURS, PEER = "ours", "written by hand"
SIGNED_IN, OPEN = "with a token", "without signing in"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    arguments = parser.parse_args()
    console.print(f"uvicorn on {_event_loop()}, HTTP parsed by {_http_parser()}")
    measures = {
        "page": measure_page,
        "summary": measure_summary,
        "why": measure_why,
        "instant": measure_instant,
        "throughput": measure_throughput,
        "sign-in": measure_sign_in,
    }
    with open_server(arguments) as server_url, Client() as client:
        bars = [
            bar
            for part, measure in measures.items()
            if arguments.only in {None, part}
            for bar in asyncio.run(measure(server_url, client))
        ]
    return judge(bars)


def _event_loop() -> str:
    return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def _http_parser() -> str:
    return "httptools" if importlib.util.find_spec("httptools") else "h11"


async def measure_page(server_url: str, client: Client) -> list[Bar]:
    """Ask for pages of fifty, of users with two hundred events and of users with three."""
    rounds_of = {}
    with ExitStack() as servers:
        for events in (MANY_EVENTS, FEW_EVENTS):
            database_url = await find_or_fill_histories(server_url, events, BREAKERS)
            url = servers.enter_context(serving(OURS, database_url))
            for users, kind in ((TRIPPED_USERS, "200 events"), (SPARSE_USERS, "3 events")):
                name = f"{kind}, of {events:,}"
                rounds_of[name] = client.timing(name, url, pages(users), REQUESTS_A_ROUND)
        rounds = await take_turns(rounds_of, ROUNDS)
    show_times("a page of 50, one connection", client, rounds_of)
    return [
        bar
        for kind in ("200 events", "3 events")
        for many, few in [(f"{kind}, of {MANY_EVENTS:,}", f"{kind}, of {FEW_EVENTS:,}")]
        for bar in (
            Bar.at_most(f"page of a user with {many}, p99", client.percentile_ms(many, 99), 10, " ms"),
            Bar.at_most(f"page of a user with {many}, p99, of {FEW_EVENTS:,}", rounds.ratio(many, few), 1.5),
        )
    ]


async def measure_summary(server_url: str, client: Client) -> list[Bar]:
    """Ask for the summary of fleets of which one breaker in a hundred is not closed."""
    rounds_of = {}
    with ExitStack() as servers:
        for breakers in SUMMARIES:
            url = servers.enter_context(serving(OURS, await find_or_fill_states(server_url, breakers)))
            name = f"{breakers:,} breakers"
            rounds_of[name] = client.timing(
                name, url, itertools.repeat(f"{PREFIX}/summary"), SUMMARIES_A_ROUND
            )
        await take_turns(rounds_of, ROUNDS)
    show_times("summary, one connection", client, rounds_of)
    return [
        Bar.at_most(f"summary over {name}, p99", client.percentile_ms(name, 99), 15, " ms")
        for name in rounds_of
    ]


async def measure_why(server_url: str, client: Client) -> list[Bar]:
    """Ask why breakers tripped, each amid two thousand that tripped within five minutes."""
    name = "an explanation"
    database_url = await find_or_fill_histories(server_url, MANY_EVENTS, BREAKERS)
    with serving(OURS, database_url) as url:
        paths = (f"{PREFIX}/{user_id}/transitions/latest/explanation" for user_id in by_chance(TRIPPED_USERS))
        await take_turns({name: client.timing(name, url, paths, EXPLANATIONS_A_ROUND)}, ROUNDS)
    show_times(f"why, {len(TRIPPED_USERS):,} trips around it, {MANY_EVENTS:,} events", client, [name])
    return [Bar.at_most(f"{name}, p99", client.percentile_ms(name, 99), 200, " ms")]


async def measure_instant(server_url: str, client: Client) -> list[Bar]:
    """Ask how breakers stood in the midst of what happened to them; a whole fleet costs a look-up for each breaker."""
    database_url = await find_or_fill_histories(server_url, MANY_EVENTS, BREAKERS)
    fleet, one = f"the summary, of {BREAKERS:,} breakers", "one breaker"
    with serving(OURS, database_url) as url:
        history = json.loads(await client.read(url, f"{PREFIX}/{TRIPPED_USERS[0]}/events?limit=50"))
        at = history["events"][25]["at"]
        paths = (f"{PREFIX}/{user_id}?at={at}" for user_id in by_chance(TRIPPED_USERS))
        summaries = itertools.repeat(f"{PREFIX}/summary?at={at}")
        rounds_of = {
            one: client.timing(one, url, paths, EXPLANATIONS_A_ROUND),
            fleet: client.timing(fleet, url, summaries, SUMMARIES_AT_AN_INSTANT_A_ROUND),
        }
        await take_turns(rounds_of, ROUNDS)
    show_times(f"at an instant, {MANY_EVENTS:,} events", client, rounds_of)
    return [Bar.at_most(f"{one} at an instant, p99", client.percentile_ms(one, 99), 50, " ms")]


async def measure_throughput(server_url: str, client: Client) -> list[Bar]:
    """Ask for pages over sixteen connections at once."""
    database_url = await find_or_fill_histories(server_url, MANY_EVENTS, BREAKERS)
    with serving(OURS, database_url) as ours, serving(PEER, database_url) as peer:
        await check_same(client, ours, peer)
        rounds = await take_turns({OURS: client.hurrying(ours), PEER: client.hurrying(peer)}, ROUNDS)
    rows = [[name, f"{rounds.median(name):,.0f}", f"{rounds.ratio(name, PEER):.2f}"] for name in (OURS, PEER)]
    show(f"a page of 50, {AT_ONCE} connections", ["", "requests/s", f"of {PEER}"], rows)
    return [Bar.at_least(f"requests/s, of {PEER}", rounds.ratio(OURS, PEER), 1.0)]


async def measure_sign_in(server_url: str, client: Client) -> list[Bar]:
    """Ask for short pages with a token, and of the same application without the door."""
    database_url = await find_or_fill_histories(server_url, FEW_EVENTS, BREAKERS)
    async with token_for(database_url) as token:
        with serving(SIGNED_IN, database_url) as guarded, serving(OPEN, database_url) as open_to_all:
            rounds_of = {
                name: client.timing(name, url, pages(SPARSE_USERS), SHORT_REQUESTS_A_ROUND, given, percent=50)
                for name, url, given in ((SIGNED_IN, guarded, token), (OPEN, open_to_all, None))
            }
            # Many short turns: what is looked for is small.
            rounds = await take_turns(rounds_of, SHORT_ROUNDS)
    show_times("a page of 3 events, one connection", client, rounds_of)
    extra_ms = rounds.difference(SIGNED_IN, OPEN)
    return [Bar.at_most("what signing in adds to a request, at the median", extra_ms, 0.3, " ms")]


@asynccontextmanager
async def token_for(database_url: str) -> AsyncIterator[str]:
    """Make a token for a viewer, and forget it after: the other parts ask without one."""
    created = await create_token(database_url, f"benchmark-{uuid.uuid4()}", Role.VIEWER)
    assert created is not None
    try:
        yield created.token
    finally:
        connection = await connect(database_url)
        await connection.execute("DELETE FROM access_tokens WHERE name = $1", created.name)
        await connection.close()


def pages(users: range) -> Iterator[str]:
    return (f"{PREFIX}/{user_id}/events?limit=50" for user_id in by_chance(users))


def by_chance(users: range) -> Iterator[int]:
    chance = random.Random(1)
    while True:
        yield chance.choice(users)


async def check_same(client: Client, *urls: str) -> None:
    """See to it that nobody is faster by doing less: all answer with the same events."""
    user_id = TRIPPED_USERS[0]
    bodies = [json.loads(await client.read(url, f"{PREFIX}/{user_id}/events?limit=50")) for url in urls]
    assert len(bodies[0]["events"]) == 50
    for body in bodies:
        assert body.keys() == bodies[0].keys()
        assert body["events"] == bodies[0]["events"]
        assert body["next_cursor"] is not None


@contextmanager
def serving(who: str, database_url: str) -> Iterator[str]:
    """Run a server in a process of its own, and give its address."""
    modules = {
        OURS: ["breaker_store.cli", "serve", "--port", "0", "--database-url"],
        SIGNED_IN: ["breaker_store.cli", "serve", "--port", "0", "--database-url"],
        OPEN: ["tests.benchmarks.http_without_door"],
        PEER: ["tests.benchmarks.http_peer"],
    }
    command = [sys.executable, "-m", *modules[who], database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            assert address is not None, f"{who}: no server is running"
            yield address[0]
        finally:
            process.terminate()


class Client:
    """A process that asks, and how many nanoseconds the answers took, by the names of the contestants."""

    def __init__(self) -> None:
        self._times_ns: defaultdict[str, list[int]] = defaultdict(list)
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.shutdown()

    async def ask(
        self, url: str, paths: Sequence[str], connections: int = 1, token: str | None = None
    ) -> Asked:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._process, ask, url, paths, connections, token)

    async def read(self, url: str, path: str) -> str:
        return (await self.ask(url, [path])).last_body

    def timing(
        self,
        name: str,
        url: str,
        paths: Iterator[str],
        count: int,
        token: str | None = None,
        *,
        percent: float = 99,
    ) -> Timed:
        """Make a round of requests, one after the other; its figure is a percentile in milliseconds."""

        async def run() -> float:
            asked = await self.ask(url, list(itertools.islice(paths, count)), token=token)
            self._times_ns[name] += asked.times_ns
            return percentile(asked.times_ns, percent) / NANOSECONDS_IN_MILLISECOND

        return run

    def hurrying(self, url: str) -> Timed:
        """Make a round of requests, many at once; its figure is how many there were a second."""
        paths = pages(TRIPPED_USERS)

        async def run() -> float:
            asked = await self.ask(url, list(itertools.islice(paths, REQUESTS_AT_ONCE_A_ROUND)), AT_ONCE)
            return REQUESTS_AT_ONCE_A_ROUND / asked.seconds

        return run

    def percentile_ms(self, name: str, percent: float) -> float:
        return percentile(self._times_ns[name], percent) / NANOSECONDS_IN_MILLISECOND


def show_times(title: str, client: Client, names: Iterable[str]) -> None:
    rows = [[name, *(f"{client.percentile_ms(name, percent):.2f}" for percent in (50, 99))] for name in names]
    show(title, ["", "p50, ms", "p99, ms"], rows)


if __name__ == "__main__":
    sys.exit(main())
