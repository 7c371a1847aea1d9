"""What can't be delivered is kept for people to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from breaker_store.errors import SpoolError
from breaker_store.spool import Spool
from tests.spool.batches import GAP, NOON, OWN_POLICY, batch_of, failed, first_failure_mark, opening, success


def documents(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_is_kept_as_one_document_a_line_with_the_reason_first(spool: Spool) -> None:
    batch = batch_of(
        failed(4), opening(5), marks=[first_failure_mark(4)], newcomers={101: OWN_POLICY}, gaps=[GAP]
    )
    path = spool.set_aside(batch, "the database says no")
    assert path.parent == spool.directory / "aside"
    first, outcome, transition, mark, newcomer, gap = documents(path)
    assert first == {
        "why": "the database says no", "writer_id": 77, "first_seq": 4, "last_seq": 5, "events": 2,
    }  # fmt: skip
    assert outcome["event"] == "77-4"
    assert outcome["at"] == "2026-01-02T12:00:00.000004+00:00"
    assert (outcome["kind"], outcome["verdict"]) == ("failure", "not_counted")
    assert outcome["error_message"] == "no answer 🙂"
    assert outcome["trace_id"] == "ffffffff-ffff-ffff-ffff-fffffffffffe"
    assert (transition["event"], transition["kind"], transition["to_state"]) == ("77-5", "opened", "open")
    assert transition["policy"] == OWN_POLICY.to_document()
    assert (mark["mark"], mark["of"]) == ("failed", 4)
    assert newcomer == {"newcomer": 101, "policy": OWN_POLICY.to_document()}
    assert (gap["gap"], gap["successes"], gap["refusals"]) == ("spool_full", 3, 2)


def test_its_files_are_for_their_owner_alone(spool: Spool) -> None:
    path = spool.set_aside(batch_of(success(1)), "because")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_same_batch_twice_is_kept_twice(spool: Spool) -> None:
    paths = {spool.set_aside(batch_of(success(1)), "because") for _ in range(3)}
    assert len(paths) == 3


@pytest.mark.parametrize(
    "row",
    [
        failed(1, message="a lone \ud800"),
        failed(1, message="a\nnew line\0"),
        (2**200, *failed(1)[1:]),
        (NOON, 2**100, *failed(1)[2:]),
        (NOON, 101, 1, object(), *failed(1)[4:]),
    ],
    ids=["a surrogate", "a new line", "no time", "a huge user", "an object"],
)
def test_an_event_that_is_odd_in_any_way_can_be_kept(spool: Spool, row: object) -> None:
    path = spool.set_aside(batch_of(row), "because")
    assert [document.get("event") for document in documents(path)] == [None, "77-1"]


def test_a_disk_that_refuses_is_an_error_that_says_where(spool: Spool) -> None:
    (spool.directory / "aside").write_text("in the way")
    with pytest.raises(SpoolError, match=f"{spool.directory}/aside"):
        spool.set_aside(batch_of(success(1)), "because")
