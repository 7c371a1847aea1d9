"""The two histories in tests/data, folded by a breaker of twenty lines that shares nothing with ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from breaker_store.importing.combined import CombinedFormat
from breaker_store.importing.formats import BadLine, ImportedOutcome, LineParser, read_outcomes
from breaker_store.importing.ndjson import NdjsonFormat
from breaker_store.importing.opening import open_input

DATA = Path(__file__).parents[1] / "data"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(name: str, parse: LineParser) -> tuple[list[ImportedOutcome], list[BadLine]]:
    bad_lines: list[BadLine] = []
    with open_input(DATA / name, lambda *_: None) as stream:
        return read_outcomes(stream, parse, bad_lines.append), bad_lines


@dataclass
class SmallBreaker:
    state: str = "closed"
    failures: int = 0
    successes: int = 0
    opened_at: int = 0
    counted: int = 0
    refused: int = 0

    def take(self, at: int, succeeded: bool) -> Iterable[tuple[str, str]]:
        if self.state == "open":
            if at - self.opened_at < 60_000_000:
                self.refused += 1
                return
            self.state, self.successes = "half_open", 0
            yield "half_opened", "wait_over"
        self.counted += 1
        self.failures = 0 if succeeded else self.failures + 1
        self.successes += succeeded and self.state == "half_open"
        if not succeeded and (self.state == "half_open" or self.failures == 5):
            yield "opened", "probe_failed" if self.state == "half_open" else "failures"
            self.state, self.opened_at, self.failures, self.successes = "open", at, 0, 0
        elif self.state == "half_open" and self.successes == 2:
            self.state, self.successes = "closed", 0
            yield "closed", "successes"


def fold(outcomes: list[ImportedOutcome]) -> tuple[list[dict[str, Any]], dict[int, SmallBreaker]]:
    breakers: dict[int, SmallBreaker] = {}
    transitions = []
    for outcome in outcomes:
        breaker = breakers.setdefault(outcome.user_id, SmallBreaker())
        for kind, cause in breaker.take(outcome.at_us, outcome.succeeded):
            at = (EPOCH + timedelta(microseconds=outcome.at_us)).isoformat(timespec="milliseconds")
            transitions.append(
                {"user_id": outcome.user_id, "kind": kind, "at": at.replace("+00:00", "Z"), "cause": cause}
            )
    return transitions, breakers


def test_the_real_log() -> None:
    """The real log has 10,000 outcomes of 1,753 clients, no bad line, and its first and last time."""
    outcomes, bad_lines = read("access.log.gz", CombinedFormat())
    assert (len(outcomes), bad_lines) == (10_000, [])
    assert len({outcome.user_id for outcome in outcomes}) == 1_753
    assert len({outcome.line for outcome in outcomes}) == 10_000
    first, last = (EPOCH + timedelta(microseconds=outcomes[end].at_us) for end in (0, -1))
    assert first == datetime(2015, 5, 17, 10, 5, 0, tzinfo=UTC)
    assert last == datetime(2015, 5, 20, 21, 5, 59, tzinfo=UTC)


def test_order_of_the_real_log() -> None:
    """The real log is sorted by time, and outcomes of one second keep the file's order."""
    parse = CombinedFormat()
    with open_input(DATA / "access.log.gz", lambda *_: None) as stream:
        unsorted = [parse(line.rstrip(b"\n"), b"") for line in stream]
    outcomes, _ = read("access.log.gz", parse)
    assert [replace(outcome, line=b"") for outcome in outcomes] == sorted(
        unsorted, key=lambda each: each.at_us
    )


def test_breakers_of_the_real_log() -> None:
    """The real log trips what its README says: 54 openings of 3 clients, 20 refusals, 3 open at the end."""
    transitions, breakers = fold(read("access.log.gz", CombinedFormat())[0])
    openings = [transition["user_id"] for transition in transitions if transition["kind"] == "opened"]
    assert (len(openings), len(set(openings))) == (54, 3)
    assert sum(breaker.counted for breaker in breakers.values()) == 9_980
    assert sum(breaker.refused for breaker in breakers.values()) == 20
    assert Counter(breaker.state for breaker in breakers.values()) == {"closed": 1_750, "open": 3}


def test_the_edges() -> None:
    """The history of edge cases has exactly the transitions, counts and last states that stand beside it."""
    outcomes, bad_lines = read("edges.ndjson", NdjsonFormat())
    expected = json.loads((DATA / "edges.expected.json").read_text())
    transitions, breakers = fold(outcomes)
    assert (len(outcomes), bad_lines) == (111, [])
    assert transitions == expected["transitions"]
    assert expected["users"] == [
        {
            "user_id": user["user_id"],
            "counted": breakers[user["user_id"]].counted,
            "would_be_refused": breakers[user["user_id"]].refused,
            "state": breakers[user["user_id"]].state,
            "success_count": breakers[user["user_id"]].successes,
        }
        for user in expected["users"]
    ]
    assert len(breakers) == len(expected["users"])


def test_the_tables_beside_the_edges() -> None:
    """The README's tables say what the expected file says."""
    readme = (DATA / "README.md").read_text()
    expected = json.loads((DATA / "edges.expected.json").read_text())
    for transition in expected["transitions"]:
        assert "| {user_id} | {kind} | {at} | ".format(**transition) in readme
    for user in expected["users"]:
        assert "| {user_id} | {counted} | {would_be_refused} | {state}".format(**user) in readme
