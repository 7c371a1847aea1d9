"""An outage of Postgres under load: `python -m tests.benchmarks.outage --minutes 10`.

A store with a spool, two thousand calls a second of a thousand users, of whom some are served badly, so that breakers
open and close. Then the server is stopped, and after a while started again. Watched are the memory, the spool and the
calls; in the end everything that happened must be in the log once, which the numbers of the events and the counts of
calls tell.

A call is timed by itself, and from the moment at which it was due: with whatever else the event loop did before it.
What is there when the load begins is kept from the garbage collector, as a service does that minds its pauses: a full
collection of what was imported takes 50 ms, at a moment that has nothing to do with what is measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from breaker_store import BreakerStore
from breaker_store.core.events import Kind
from breaker_store.embedded import EmbeddedPostgres
from breaker_store.postgres.connecting import connect
from breaker_store.postgres.migrating import upgrade
from tests.benchmarks.load import POLICY, Load
from tests.benchmarks.measuring import Bar, console, judge, percentile, show

PHASES = ("before", "outage", "delivering", "after")
CALM_SECONDS = 20.0
SAMPLE_SECONDS = 0.5
MEGABYTE = 1_000_000
GROWTH_MEGABYTES = 64
LATE_GROWTH_MEGABYTES = 16
SINCE_DUE_MS = 5
LEFT_WAITING = 1_000

_STORED = """
SELECT kind, sum(coalesce(count, 1))::bigint AS events FROM breaker_events WHERE writer_id = $1 GROUP BY kind
"""
_NUMBERS = """
SELECT count(*) AS events, count(DISTINCT writer_seq) AS numbers FROM breaker_events WHERE writer_id = $1
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.5, help="without Postgres")
    parser.add_argument("--rate", type=int, default=2_000, help="calls a second")
    parser.add_argument("--data-dir", type=Path, help="of the embedded Postgres; otherwise a temporary one")
    arguments = parser.parse_args()
    with folders(arguments.data_dir) as (data_dir, spool_dir):
        outage = Outage(EmbeddedPostgres(data_dir), spool_dir, arguments.minutes * 60)
        return asyncio.run(outage.run(arguments.rate))


@contextmanager
def folders(data_dir: Path | None) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="breaker-store-benchmark-") as folder:
        # Root's server runs as another user, who has to pass through.
        Path(folder).chmod(0o711)
        yield data_dir or Path(folder, "data"), Path(folder, "spool")


class Sample(NamedTuple):
    """The process at one moment; `resident` is its memory without what the benchmark keeps of each call."""

    phase: str
    resident: int
    in_memory: int
    on_disk: int
    spool_bytes: int


@dataclass
class Outage:
    """One run; the server is stopped and started as `EmbeddedPostgres` does it."""

    server: EmbeddedPostgres
    spool_dir: Path
    outage_seconds: float

    async def run(self, calls_a_second: int) -> int:
        await asyncio.to_thread(self.server.acquire)
        try:
            return await self._run(self.server.url, calls_a_second)
        finally:
            await asyncio.to_thread(self.server.release)

    async def _run(self, database_url: str, calls_a_second: int) -> int:
        await upgrade(database_url)
        async with BreakerStore.open(
            database_url=database_url, spool_dir=self.spool_dir, policy=POLICY
        ) as store:
            gc.collect()
            gc.freeze()
            load = Load(store.registry, calls_a_second)
            watch = Watch(store, load, self.spool_dir)
            tasks = [asyncio.create_task(load.run()), asyncio.create_task(watch.run())]
            try:
                delivery_seconds = await self._go_through(store, load)
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):
                    raise error
            await store.flush()
            stored = await Stored.of(database_url, store.recorder.writer_id)
            stats = store.recorder.stats()
        console.print(f"recorder: {stats}")
        watch.show()
        show_times(load)
        console.print(f"delivered within {delivery_seconds:.1f} s, at {calls_a_second:,} new calls a second")
        return judge(
            [*judge_times(load), *watch.judge(), *stored.judge(load.happened), none_lost(stats.lost)]
        )

    async def _go_through(self, store: BreakerStore, load: Load) -> float:
        """Go through all phases; give how many seconds it took to deliver what the outage had left."""
        calm_seconds = min(CALM_SECONDS, self.outage_seconds)
        await asyncio.sleep(calm_seconds / 4)
        load.phase = "before"
        await asyncio.sleep(calm_seconds)
        load.phase = "stopping"
        url = self.server.url
        await asyncio.to_thread(self.server.release)
        load.phase = "outage"
        await asyncio.sleep(self.outage_seconds)
        load.phase = "starting"
        await asyncio.to_thread(self.server.acquire)
        assert self.server.url == url, "choose a shorter path: the server has another address each time"
        load.phase = "delivering"
        started = time.monotonic()
        # Not by `flush`: it would wait for what happens meanwhile as well, and whoever waits changes what is waited for.
        while store.recorder.stats().spooled or store.recorder.stats().queued > LEFT_WAITING:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        seconds = time.monotonic() - started
        load.phase = "after"
        await asyncio.sleep(calm_seconds)
        load.phase = "ending"
        return seconds


class Watch:
    """Takes samples of the process's memory and of what waits where."""

    def __init__(self, store: BreakerStore, load: Load, spool_dir: Path) -> None:
        self._store = store
        self._load = load
        self._spool_dir = spool_dir
        self._samples: list[Sample] = []

    async def run(self) -> None:
        while True:
            stats = self._store.recorder.stats()
            size = sum(file.stat().st_size for file in self._spool_dir.glob("*.spool"))
            phase = self._load.phase
            self._samples.append(
                Sample(phase, resident_bytes() - self._load.own_bytes, stats.queued, stats.spooled, size)
            )
            await asyncio.sleep(SAMPLE_SECONDS)

    def show(self) -> None:
        rows = []
        for phase in PHASES:
            of_phase = self._of(phase)
            resident = [sample.resident for sample in of_phase]
            rows.append(
                [
                    phase,
                    *(f"{each / MEGABYTE:.1f}" for each in (resident[0], max(resident), resident[-1])),
                    f"{max(sample.in_memory for sample in of_phase):,}",
                    f"{max(sample.on_disk for sample in of_phase):,}",
                    f"{max(sample.spool_bytes for sample in of_phase) / MEGABYTE:.1f}",
                ]
            )
        columns = ["", "MB, first", "most", "last", "events in memory", "on disk alone", "MB of spool"]
        show("resident memory, less these figures' own, and the most that waited", columns, rows)

    def judge(self) -> list[Bar]:
        before = max(sample.resident for sample in self._of("before"))
        outage = [sample.resident for sample in self._of("outage")]
        halfway = len(outage) // 2
        growth = max(sample.resident for sample in self._samples) - before
        late_growth = max(outage[halfway:]) - max(outage[: halfway or 1])
        unit = " MB"
        return [
            Bar.at_most("memory, most of all over before", growth / MEGABYTE, GROWTH_MEGABYTES, unit),
            Bar.at_most(
                "outage's second half over its first", late_growth / MEGABYTE, LATE_GROWTH_MEGABYTES, unit
            ),
        ]

    def _of(self, phase: str) -> list[Sample]:
        return [sample for sample in self._samples if sample.phase == phase] or self._samples[-1:]


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def show_times(load: Load) -> None:
    percents = (50, 99, 99.9, 100)
    columns = ["", "calls", "p50", "p99", "p99.9", "longest"]
    for title, place, unit_ns in (
        ("calls, µs", 0, 1_000),
        ("the same, since they were due, ms", 1, 1_000_000),
    ):
        rows = []
        for phase in PHASES:
            times_ns = load.times[phase][place]
            shown = (f"{percentile(times_ns, percent) / unit_ns:,.2f}" for percent in percents)
            rows.append([phase, f"{len(times_ns):,}", *shown])
        show(title, columns, rows)


def judge_times(load: Load) -> list[Bar]:
    """Judge calls against those before the outage, and what the event loop adds; while delivering both are shown."""
    of_calls = {phase: percentile(load.times[phase].of_calls, 99) for phase in PHASES}
    since_due_ms = percentile(load.times["outage"].since_due, 99) / 1_000_000
    return [
        Bar.at_most("p99 of calls, outage, of before", of_calls["outage"] / of_calls["before"], 1.2),
        Bar.at_most("p99 of calls, after, of before", of_calls["after"] / of_calls["before"], 1.2),
        Bar.at_most("p99 since calls were due, outage", since_due_ms, SINCE_DUE_MS, " ms"),
    ]


@dataclass(frozen=True)
class Stored:
    """What the log has of a writer: events by their kinds, refusals each for itself; rows; and different numbers."""

    events: dict[Kind, int]
    rows: int
    numbers: int

    @classmethod
    async def of(cls, database_url: str, writer_id: int) -> Stored:
        connection = await connect(database_url, command_timeout_seconds=300)
        try:
            kinds = await connection.fetch(_STORED, writer_id)
            rows, numbers = await connection.fetchrow(_NUMBERS, writer_id)
        finally:
            await connection.close()
        return cls({Kind(row["kind"]): row["events"] for row in kinds}, rows, numbers)

    def judge(self, happened: Counter[Kind]) -> list[Bar]:
        bars = [
            Bar(
                f"all {self.rows:,} stored events have a number of their own",
                f"{self.numbers:,}",
                self.rows == self.numbers,
            )
        ]
        for kind, count in sorted(happened.items()):
            stored = self.events.get(kind, 0)
            bars.append(
                Bar(
                    f"{kind.name.lower()}: {count:,} happened, as many are stored",
                    f"{stored:,}",
                    stored == count,
                )
            )
        return bars


def none_lost(lost: int) -> Bar:
    return Bar("none lost, by the recorder's own account", f"{lost:,}", lost == 0)


if __name__ == "__main__":
    sys.exit(main())
