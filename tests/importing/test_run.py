"""Histories run into the log, read back from it, and run again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from breaker_store.core.events import CircuitState, Kind, Verdict
from breaker_store.core.policy import Policy
from breaker_store.importing.combined import CombinedFormat
from breaker_store.importing.formats import ImportedOutcome, LineParser, read_outcomes
from breaker_store.importing.ndjson import NdjsonFormat
from breaker_store.importing.opening import open_input
from breaker_store.importing.run import HAS_LATER_EVENTS, WAS_CHANGED, OnProgress, import_outcomes
from breaker_store.postgres import loading
from breaker_store.postgres.imports import ImportRunningError, import_alone
from breaker_store.postgres.migrating import upgrade
from breaker_store.store import BreakerStore

DATA = Path(__file__).parents[1] / "data"
SECOND = 1_000_000
START = 1_700_000_000 * SECOND

Connect = Callable[[str], Awaitable[asyncpg.Connection]]


def read(name: str, parse: LineParser) -> list[ImportedOutcome]:
    with open_input(DATA / name, lambda *_: None) as stream:
        return read_outcomes(stream, parse, lambda _: None)


def lines(user_id: int, outcomes: str, *, at: int = START, step: int = SECOND) -> list[ImportedOutcome]:
    """Make a line for each letter, S for a success and F for a failure."""
    return [
        ImportedOutcome(
            user_id, at + number * step, letter == "S", None, "send", None, None,
            (user_id * 2**90 + at * 2**20 + number).to_bytes(16, "big"),
        )
        for number, letter in enumerate(outcomes)
    ]  # fmt: skip


def by_time(*histories: Iterable[ImportedOutcome]) -> list[ImportedOutcome]:
    return sorted((line for history in histories for line in history), key=lambda line: line.at_us)


async def states(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Read every breaker as a start-up would, without what differs from one import to another."""
    user_ids = await connection.fetch("SELECT user_id FROM breaker_states ORDER BY user_id")
    stored = [await loading.read_breaker(connection, row["user_id"], Policy()) for row in user_ids]
    return [
        (
            each.user_id, each.state.state, each.state.version, each.state.generation, each.state.failure_count,
            each.state.success_count, each.state.since, each.state.opened_at, each.state.retry_at,
            [failure.at for failure in each.state.failures],
            each.state.last_failure and each.state.last_failure.at,
        )
        for each in stored
        if each is not None
    ]  # fmt: skip


async def events(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Read every event in the order of each user's history.

    Without ids and eras, which are drawn, and without the probes' numbers, which every process begins anew.
    """
    rows = await connection.fetch(
        """SELECT user_id, occurred_at, kind, verdict, generation, version, operation, error_type, error_message
        FROM breaker_events ORDER BY user_id, occurred_at, writer_id, writer_seq"""
    )
    return [tuple(row) for row in rows]


async def verdicts(connection: asyncpg.Connection, user_id: int) -> list[Verdict]:
    rows = await connection.fetch(
        "SELECT verdict FROM breaker_outcomes WHERE user_id = $1 ORDER BY occurred_at, writer_id, writer_seq",
        user_id,
    )
    return [Verdict(row["verdict"]) for row in rows]


async def count_everything(connection: asyncpg.Connection) -> list[int]:
    tables = ("breaker_events", "imported_lines", "writer_batches", "breaker_states")
    return [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]


async def test_the_real_log(database_url: str, connection: asyncpg.Connection) -> None:
    """The real log gives what its README says, and imported again it adds nothing."""
    outcomes = read("access.log.gz", CombinedFormat())
    report = await import_outcomes(database_url, outcomes)
    assert (report.lines, report.stored_before, report.late, report.left_out) == (10_000, 0, 0, 0)
    assert (report.counted, report.would_be_refused) == (9_980, 20)
    assert (report.openings.total(), len(report.openings)) == (54, 3)
    assert report.states == {CircuitState.CLOSED: 1_750, CircuitState.OPEN: 3}
    assert report.refused == {}
    stored = await count_everything(connection)
    assert stored[1:] == [10_000, 11, 1_753]

    again = await import_outcomes(database_url, outcomes)
    assert (again.stored_before, again.counted, again.openings.total()) == (10_000, 0, 0)
    assert again.states == report.states
    assert await count_everything(connection) == stored


async def test_a_batch_is_of_one_day(database_url: str, connection: asyncpg.Connection) -> None:
    """Else retention would take all days between two lines for touched by the import, and keep them."""
    await import_outcomes(database_url, read("edges.ndjson", NdjsonFormat()))
    spans = await connection.fetch("SELECT DISTINCT earliest::date, latest::date FROM writer_batches")
    assert len(spans) > 1
    assert all(earliest == latest for earliest, latest in spans)


async def test_the_edges(database_url: str, connection: asyncpg.Connection) -> None:
    """The history of edge cases gives exactly the transitions, counts and last states that stand beside it."""
    expected = json.loads((DATA / "edges.expected.json").read_text())
    await import_outcomes(database_url, read("edges.ndjson", NdjsonFormat()))
    rows = await connection.fetch(
        "SELECT user_id, kind, occurred_at, details FROM breaker_transitions ORDER BY position"
    )
    assert [
        {
            "user_id": row["user_id"],
            "kind": Kind(row["kind"]).label,
            "at": row["occurred_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        for row in rows
    ] == [{key: each[key] for key in ("user_id", "kind", "at")} for each in expected["transitions"]]
    assert [cause_of(row) for row in rows] == [each["cause"] for each in expected["transitions"]]
    for user in expected["users"]:
        judged = Counter(await verdicts(connection, user["user_id"]))
        assert judged[Verdict.COUNTED] == user["counted"]
        assert judged[Verdict.WOULD_BE_REFUSED] == user["would_be_refused"]
        stored = await loading.read_breaker(connection, user["user_id"], Policy())
        assert stored is not None
        assert (stored.state.state, stored.state.success_count) == (user["state"], user["success_count"])


def cause_of(row: asyncpg.Record) -> str:
    details = json.loads(row["details"])
    return {
        ("closed", "open"): "failures",
        ("half_open", "open"): "probe_failed",
        ("open", "half_open"): "wait_over",
        ("half_open", "closed"): "successes",
    }[details["from"], details["to"]]


class KilledError(Exception):
    """The import ends here."""


@pytest.mark.parametrize(
    ("name", "parse", "batch_size"),
    [("access.log.gz", CombinedFormat(), 700), ("edges.ndjson", NdjsonFormat(), 7)],
)
async def test_a_killed_import_is_finished_by_the_next(
    name: str,
    parse: LineParser,
    batch_size: int,
    *,
    connect: Connect,
    database_url: str,
    empty_database_url: str,
) -> None:
    """An import that is killed after some batches, again and again, ends with the events and states of one that isn't."""
    outcomes = read(name, parse)
    await import_outcomes(database_url, outcomes, batch_size=batch_size)
    await upgrade(empty_database_url)
    for stop in range(0, len(outcomes), 4 * batch_size):
        with pytest.raises(KilledError):
            await import_outcomes(
                empty_database_url, outcomes, on_progress=kill_after(stop), batch_size=batch_size
            )
    await import_outcomes(empty_database_url, outcomes, batch_size=batch_size)
    whole, pieces = await connect(database_url), await connect(empty_database_url)
    assert await events(pieces) == await events(whole)
    assert await states(pieces) == await states(whole)


def kill_after(stop: int) -> OnProgress:
    def die(done: int, _total: int) -> None:
        if done > stop:
            raise KilledError

    return die


async def test_cancelling_leaves_whole_batches(database_url: str, connection: asyncpg.Connection) -> None:
    """A cancelled import leaves no line without its event, and lets the next one begin."""
    outcomes = lines(1, "S" * 2_000)

    def cancel(done: int, _total: int) -> None:
        if done == 300:
            importing.cancel()

    importing = asyncio.create_task(
        import_outcomes(database_url, outcomes, on_progress=cancel, batch_size=100)
    )
    with pytest.raises(asyncio.CancelledError):
        await importing
    stored, *_ = await count_everything(connection)
    assert await count_everything(connection) == [stored, stored, stored // 100, 1]
    report = await import_outcomes(database_url, outcomes)
    assert report.counted == 2_000 - stored


async def test_a_file_that_grew(database_url: str, connection: asyncpg.Connection) -> None:
    """A file that grew adds its new lines, and the breakers go on from where they were."""
    first = lines(1, "FFFF")
    await import_outcomes(database_url, first)
    report = await import_outcomes(database_url, first + lines(1, "F", at=START + 9 * SECOND))
    assert (report.stored_before, report.counted, report.openings) == (4, 1, {1: 1})
    [cause, *_] = json.loads(await connection.fetchval("SELECT details FROM breaker_transitions"))["causes"]
    assert cause["at"] == "2023-11-14T22:13:20.000000+00:00"


@pytest.mark.parametrize("attempt", range(4))
async def test_a_file_that_grew_within_a_second(
    attempt: int, database_url: str, connection: asyncpg.Connection
) -> None:
    """New lines of the very time of the last stored one come after it, in the log as in the file."""
    await import_outcomes(database_url, lines(1, "FFF", step=0))
    await import_outcomes(database_url, lines(1, "___SF", step=0)[3:])
    stored = await loading.read_breaker(connection, 1, Policy())
    assert stored is not None
    assert stored.state.failure_count == 1


async def test_late_lines(database_url: str, connection: asyncpg.Connection) -> None:
    """A line older than what is stored of its user is kept for health, and changes nothing."""
    await import_outcomes(database_url, lines(1, "FFFF"))
    report = await import_outcomes(database_url, lines(1, "FFFF", at=START - 60 * SECOND))
    assert (report.late, report.counted, report.openings.total()) == (4, 0, 0)
    assert await verdicts(connection, 1) == [Verdict.NOT_COUNTED] * 4 + [Verdict.COUNTED] * 4
    stored = await loading.read_breaker(connection, 1, Policy())
    assert stored is not None
    assert stored.state.failure_count == 4


async def succeed() -> None:
    pass


async def fail() -> None:
    raise ConnectionError


async def test_later_live_events(database_url: str, connection: asyncpg.Connection) -> None:
    """A user who has later live events is refused with the reason; the others go on."""
    async with BreakerStore.open(database_url=database_url) as store:
        await store.registry.get_breaker(1).call(succeed)
    report = await import_outcomes(database_url, by_time(lines(1, "SSS"), lines(2, "SS")))
    assert (report.refused, report.left_out, report.counted) == ({1: HAS_LATER_EVENTS}, 3, 2)
    assert len(await verdicts(connection, 1)) == 1


async def test_later_live_events_behind_imported_ones(database_url: str) -> None:
    """A line is refused too if what is newest was imported, but something live lies between."""
    async with BreakerStore.open(database_url=database_url) as store:
        await store.registry.get_breaker(1).call(succeed)
    in_2100 = 4_102_444_800 * SECOND
    assert (await import_outcomes(database_url, lines(1, "S", at=in_2100))).counted == 1
    report = await import_outcomes(database_url, lines(1, "S"))
    assert report.refused == {1: HAS_LATER_EVENTS}


async def test_earlier_live_events(database_url: str, connection: asyncpg.Connection) -> None:
    """Lines that follow a user's live events go on from there."""
    async with BreakerStore.open(database_url=database_url) as store:
        for _ in range(4):
            with pytest.raises(ConnectionError):
                await store.registry.get_breaker(1).call(fail)
    report = await import_outcomes(database_url, lines(1, "F", at=4_102_444_800 * SECOND))
    assert (report.refused, report.openings) == ({}, {1: 1})


async def test_a_breaker_that_changes_meanwhile(database_url: str, connection: asyncpg.Connection) -> None:
    """A user whose breaker a live process opens meanwhile is refused from then on; what lost is superseded."""

    def interfere(done: int, _total: int) -> None:
        if done == 2:
            # The import goes on when this returns; until then the other process must have ended.
            other = threading.Thread(target=asyncio.run, args=[open_breaker(database_url, 1)])
            other.start()
            other.join()

    history = by_time(lines(1, "FFFFFSS"), lines(2, "SSSSSSS"))
    report = await import_outcomes(database_url, history, on_progress=interfere, batch_size=2)
    assert report.refused == {1: WAS_CHANGED}
    assert report.openings.total() == 0
    assert (report.counted, report.left_out) == (12, 2)
    rows = await connection.fetch("SELECT position FROM breaker_transitions ORDER BY writer_id")
    assert sorted(row["position"] is None for row in rows) == [False, True]


async def open_breaker(database_url: str, user_id: int) -> None:
    async with BreakerStore.open(database_url=database_url) as store:
        for _ in range(4):
            with pytest.raises(ConnectionError):
                await store.registry.get_breaker(user_id).call(fail)


async def test_one_import_at_a_time(database_url: str, connection: asyncpg.Connection) -> None:
    """A second import at the same time is refused with a clear error, and adds nothing."""
    async with import_alone(database_url):
        with pytest.raises(ImportRunningError, match="another import"):
            await import_outcomes(database_url, lines(1, "S"))
    assert await count_everything(connection) == [0, 0, 0, 0]


async def test_the_ledger_says_import(database_url: str, connection: asyncpg.Connection) -> None:
    """An import is one writer whose batches follow one another and say that they were imported."""
    await import_outcomes(database_url, lines(1, "SSSSS"), batch_size=2)
    rows = await connection.fetch("SELECT * FROM writer_batches ORDER BY batch_no")
    assert [(row["batch_no"], row["first_seq"], row["last_seq"], row["source"]) for row in rows] == [
        (1, 1, 2, 1),
        (2, 3, 4, 1),
        (3, 5, 5, 1),
    ]
    assert [row["previous_digest"] for row in rows[1:]] == [row["digest"] for row in rows[:-1]]


async def test_texts_are_cleaned(database_url: str, connection: asyncpg.Connection) -> None:
    """Secrets and what Postgres can't store are taken out of texts, in outcomes and in causes."""
    token = "123456789:AAFabcdefghijklmnopqrstuvwxyz012345678"
    outcomes = [
        ImportedOutcome(
            1, START + number, False, 5, f"GET /bot{token}/x", "E\0", f"{token}\ud800", bytes([number] * 16)
        )
        for number in range(5)
    ]
    await import_outcomes(database_url, outcomes)
    row = await connection.fetchrow("SELECT * FROM breaker_outcomes LIMIT 1")
    assert (row["operation"], row["error_type"], row["error_message"]) == (
        "GET /bot[hidden]/x",
        "E",
        "[hidden]",
    )
    assert token not in await connection.fetchval("SELECT details::text FROM breaker_transitions")


async def test_a_policy_for_newcomers(database_url: str, connection: asyncpg.Connection) -> None:
    """The policy that is given holds for users who have none of their own."""
    report = await import_outcomes(database_url, lines(1, "FF"), policy=Policy(failure_threshold=2))
    assert report.openings == {1: 1}


async def test_the_policy_in_force(database_url: str) -> None:
    """Without a policy, that of what is stored goes on, and newcomers get the default."""
    await import_outcomes(database_url, lines(1, "F"), policy=Policy(failure_threshold=2))
    later = by_time(lines(1, "F", at=START + 9 * SECOND), lines(2, "FF", at=START + 9 * SECOND))
    report = await import_outcomes(database_url, later)
    assert report.openings == {1: 1}


async def test_nothing_to_import(database_url: str, connection: asyncpg.Connection) -> None:
    """No lines give an empty report."""
    report = await import_outcomes(database_url, [])
    assert (report.lines, report.counted, report.states) == (0, 0, {})
    assert await count_everything(connection) == [0, 0, 0, 0]
