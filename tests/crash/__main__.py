"""Breaks things on purpose, for as long as wanted, and looks whether anything is lost or doubled.

A process under load is killed again and again, or its Postgres is, or both are; or the connection between them is cut
at every message of the protocol. What a call acknowledged must be stored, once and in order. Exits with 1 if it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from breaker_store.postgres.migrating import upgrade
from tests.crash import cuts
from tests.crash.oracle import Verdict
from tests.crash.rounds import Run, end_the_process, kill_both, kill_the_process, kill_the_server
from tests.crash.server import KillableServer

NEWS_SECONDS = 15.0
SHOWN = 10


def main() -> int:
    arguments = parse()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    with place(arguments.folder) as folder:
        if arguments.database_url is not None:
            return work(arguments, arguments.database_url, folder, None)
        with KillableServer(folder / "data") as server:
            asyncio.run(server.set_up())
            return work(arguments, server.url, folder, server)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--postmaster", action="store_true", help="kill Postgres instead of the process")
    what.add_argument("--both", action="store_true", help="kill now the one, now the other, now both")
    what.add_argument("--sigterm", action="store_true", help="end the process in order, by SIGTERM")
    what.add_argument("--cuts", action="store_true", help="cut the connection at every message instead")
    parser.add_argument("--rounds", type=int, help="1,000 for the process, 100 for Postgres")
    parser.add_argument(
        "--events", type=int, default=45_000, help="of --cuts: go on until so many are stored"
    )
    parser.add_argument("--durability", choices=["behind", "journaled", "committed"], default="journaled")
    parser.add_argument("--without-spool", action="store_true", help="of committed: with Postgres alone")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--database-url", help="a database for this alone; else an embedded one with its usual settings"
    )
    parser.add_argument(
        "--folder", type=Path, help="a new folder to be kept, with data, spool and the processes' log"
    )
    arguments = parser.parse_args()
    if arguments.database_url is not None and (arguments.postmaster or arguments.both):
        parser.error("only an embedded Postgres can be killed")
    if arguments.rounds is None:
        arguments.rounds = 100 if arguments.postmaster or arguments.both else 1_000
    return arguments


@contextmanager
def place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="breaker-store-crash-") as name:
        # Root's server runs as another user, who has to pass through.
        Path(name).chmod(0o711)
        yield Path(name)


def work(
    arguments: argparse.Namespace, database_url: str, folder: Path, server: KillableServer | None
) -> int:
    owner_url = database_url if server is None else server.owner_url
    asyncio.run(upgrade(owner_url))
    if arguments.cuts:
        logging.basicConfig(filename=folder / "cuts.log")
        return run_cuts(database_url, owner_url, folder, arguments.events)
    run = Run(database_url, folder, arguments.durability, has_spool=not arguments.without_spool)
    try:
        return report(run_rounds(arguments, run, server, owner_url), arguments.rounds)
    except Exception:
        if run.log_file.exists():
            print(run.log_file.read_text()[-5_000:], file=sys.stderr)
        raise
    finally:
        run.leave_nobody()


def run_rounds(
    arguments: argparse.Namespace, run: Run, server: KillableServer | None, owner_url: str
) -> Verdict:
    if arguments.postmaster and server is not None:
        survivor = run.begin_to_work()
        repeat(arguments.rounds, run, lambda: kill_the_server(server, survivor))
        survivor.end(signal.SIGTERM)
    elif arguments.both and server is not None:
        repeat(arguments.rounds, run, lambda: kill_one_or_the_other(run, server))
    else:
        one_round = end_the_process if arguments.sigterm else kill_the_process
        repeat(arguments.rounds, run, lambda: one_round(run))
    end_the_process(run)
    return run.judge(owner_url)


def kill_one_or_the_other(run: Run, server: KillableServer) -> None:
    victim = random.randrange(3)
    if victim == 0:
        kill_the_process(run)
    elif victim == 1:
        kill_both(run, server)
    else:
        child = run.begin_to_work()
        kill_the_server(server, child)
        child.kill()


def repeat(rounds: int, run: Run, one_round: Callable[[], None]) -> None:
    news_at = time.monotonic() + NEWS_SECONDS
    for number in range(1, rounds + 1):
        one_round()
        if time.monotonic() > news_at:
            news_at += NEWS_SECONDS
            print(f"{number:,} of {rounds:,} rounds, {run.acknowledged:,} calls acknowledged", flush=True)


def report(verdict: Verdict, rounds: int) -> int:
    for what, texts in (
        ("lost", verdict.lost), ("doubled", verdict.doubled), ("wrong", verdict.complaints)
    ):  # fmt: skip
        for text in texts[:SHOWN]:
            print(f"{what}: {text}")
    print(
        f"{rounds:,} rounds, {verdict.acknowledged:,} acknowledged, {verdict.stored:,} stored, "
        f"{verdict.at_risk:,} gone that were at risk for {verdict.at_risk_us / 1_000:.0f} ms at most, "
        f"{len(verdict.lost):,} lost, {len(verdict.doubled):,} doubled, "
        f"{len(verdict.complaints):,} otherwise wrong"
    )
    return 0 if verdict.is_clean else 1


def run_cuts(database_url: str, owner_url: str, folder: Path, events: int) -> int:
    outcome = asyncio.run(cuts.cut_until(database_url, owner_url, folder / "spool", events))
    for complaint in outcome.complaints[:SHOWN]:
        print(f"wrong: {complaint}")
    print(
        f"{outcome.cuts:,} cuts, {outcome.freezes:,} freezes, {outcome.happened:,} events, "
        f"{len(outcome.complaints):,} wrong"
    )
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
