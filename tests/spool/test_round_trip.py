"""What was written is what is read: every kind of event, equal to the last field."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from breaker_store.core.events import CAUSES_LIMIT, EventId, Failure
from breaker_store.core.policy import Policy
from breaker_store.errors import EventRefusedError
from breaker_store.ports import Batch, OutcomeRow, Source
from breaker_store.spool import Spool, SpoolWriter
from tests.depth import DEPTH
from tests.spool.batches import (
    BIGINT,
    FAILURE,
    GAP,
    NOON,
    OWN_POLICY,
    STARTED,
    WRITER,
    any_batches,
    batch_of,
    content,
    failed,
    first_failure_mark,
    one_of_each_kind,
    opening,
    read_all,
    refusals,
    seqs,
    spool_files,
    success,
    write_all,
)

REFUSED = {
    "a surrogate in a message": batch_of(success(2), failed(3, message="\ud800")),
    "a surrogate in a reason": batch_of(success(2), opening(3, reason="a\udfffb")),
    "a user beyond 64 bits": batch_of(success(2), success(3, user_id=2**63)),
    "a number beyond 64 bits": batch_of(success(2), failed(2**63)),
    "a user that is a text": batch_of(success(2), success(3, user_id="me")),
    "a message that is bytes": batch_of(success(2), failed(3, message=b"no")),
    "more text than a record holds": batch_of(success(2), failed(3, message="x" * 2**20)),
}


@settings(max_examples=50 * DEPTH, deadline=None)
@given(batch=any_batches(), limit=st.integers(1, 6), is_dead=st.booleans())
@example(batch=batch_of(success(1, user_id=-BIGINT - 1)), limit=1, is_dead=False)
def test_any_batch_comes_back_as_it_was(batch: Batch, limit: int, is_dead: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        spool = Spool(Path(directory))
        writer = spool.begin(WRITER, STARTED)
        writer.write(batch)
        if is_dead:
            spool.close()
            spool = Spool(Path(directory))
            (writer,) = spool.leftovers() or [writer]
        found = read_all(writer, limit=limit)
        assert content(found) == content([batch])
        assert not writer.damaged
        spool.close()


def test_a_batch_that_was_read_is_complete_but_for_its_place_in_the_ledger(writer: SpoolWriter) -> None:
    batch = batch_of(
        success(4),
        failed(5),
        opening(7),
        marks=[first_failure_mark(5)],
        newcomers={101: OWN_POLICY},
        gaps=[GAP],
    )
    writer.write(replace(batch, batch_no=12, previous_digest=b"x" * 32))
    assert writer.read(3, 10) == batch


def test_times_and_numbers_of_a_batch_are_those_of_its_events(writer: SpoolWriter) -> None:
    write_all(writer, [batch_of(success(4), success(5)), batch_of(opening(7)), batch_of(refusals(9))])
    read = writer.read(4, 2)
    assert read is not None
    assert (read.first_seq, read.last_seq, read.earliest, read.latest) == (5, 7, NOON + 5, NOON + 7)


def test_a_success_on_its_own_is_the_same_as_in_a_batch(writer: SpoolWriter) -> None:
    rows = [success(1, operation=None), success(2, operation=""), success(3, operation="send")]
    for at, user_id, seq, duration_us, generation, era, *_, operation, _, _ in rows:
        writer.write_success(seq, user_id, at, duration_us or 0, generation, era, operation)
    assert content(read_all(writer)).events == rows


def test_secrets_in_names_do_not_reach_the_disk(writer: SpoolWriter, directory: Path) -> None:
    writer.write_success(1, 101, NOON, 5, 0, 0, "password=hunter2")
    writer.write(batch_of((*failed(2)[:12], "token=hunter2", "secret=hunter2", None)))
    assert b"hunter2" not in b"".join(path.read_bytes() for path in directory.glob("*.spool"))


def test_the_longest_transition_comes_back(writer: SpoolWriter) -> None:
    cause = Failure(EventId(2**63 - 1, 2**63 - 1), NOON, "🙂" * 200, "🙂" * 2_000, "🙂" * 200, 2**63 - 1)
    batch = batch_of(opening(1, causes=(cause,) * CAUSES_LIMIT, last_failure=cause, reason="🙂" * 2_000))
    writer.write(batch)
    writer.write(batch_of(success(2)))
    assert content(read_all(writer)) == content([batch, batch_of(success(2))])


def test_every_kind_of_event_comes_back_in_order_whatever_the_limit(writer: SpoolWriter) -> None:
    batches = one_of_each_kind()
    write_all(writer, batches)
    for limit in range(1, 10):
        assert content(read_all(writer, limit=limit)) == content(batches)


@pytest.mark.parametrize("source", Source)
def test_the_source_is_kept(writer: SpoolWriter, source: Source) -> None:
    writer.write(batch_of(success(1), opening(2), source=source))
    assert [batch.source for batch in read_all(writer, limit=1)] == [source, source]


@pytest.mark.parametrize("batch", REFUSED.values(), ids=REFUSED.keys())
def test_a_batch_with_an_event_that_cannot_be_encoded_is_refused_as_a_whole(
    writer: SpoolWriter, directory: Path, batch: Batch
) -> None:
    writer.write(batch_of(success(1)))
    before = spool_files(directory)[0].read_bytes()
    with pytest.raises(EventRefusedError):
        writer.write(batch)
    assert spool_files(directory)[0].read_bytes() == before
    writer.write(batch_of(success(2)))
    assert seqs(read_all(writer)) == [1, 2]


@pytest.mark.parametrize(
    "fields",
    [
        (2**63, NOON, 1, 0, 0),
        (1, 2**63, 1, 0, 0),
        (1, NOON, 2**63, 0, 0),
        (1, NOON, 1, 2**31, 0),
        (1, NOON, 1, 0, 2**31),
    ],
)
def test_a_success_whose_numbers_have_no_room_is_refused(
    writer: SpoolWriter, fields: tuple[int, ...]
) -> None:
    with pytest.raises(EventRefusedError):
        writer.write_success(1, *fields, "send")
    writer.write_success(1, 1, NOON, 1, 0, 0, "send")
    assert seqs(read_all(writer)) == [1]


def test_an_operation_with_surrogates_is_kept_without_them(writer: SpoolWriter) -> None:
    writer.write_success(1, 1, NOON, 1, 0, 0, "se\ud800nd")
    (batch,) = read_all(writer)
    assert batch.outcomes[0][12] == "send"


@pytest.mark.parametrize("seq", [4, 5])
def test_a_number_that_is_not_above_the_last_is_an_error(writer: SpoolWriter, seq: int) -> None:
    writer.write(batch_of(success(5)))
    with pytest.raises(ValueError, match="comes after event 5"):
        writer.write_success(seq, 1, NOON, 1, 0, 0, None)
    with pytest.raises(ValueError, match="comes after event 5"):
        writer.write(batch_of(success(seq), success(6)))
    assert seqs(read_all(writer)) == [5]


def test_the_same_number_twice_in_a_batch_is_an_error(writer: SpoolWriter) -> None:
    with pytest.raises(ValueError, match="comes after"):
        writer.write(batch_of(success(5), opening(5)))


def test_another_writers_batch_is_an_error(writer: SpoolWriter) -> None:
    with pytest.raises(ValueError, match="writer 78"):
        writer.write(batch_of(success(1), writer_id=78))


def test_a_batch_of_nothing_writes_nothing(writer: SpoolWriter, directory: Path) -> None:
    writer.write(batch_of())
    assert list(directory.glob("*.spool")) == []


def test_a_newcomer_comes_with_its_first_event(writer: SpoolWriter) -> None:
    rows: list[OutcomeRow] = [success(1), success(2, user_id=102), success(3), success(4, user_id=102)]
    writer.write(batch_of(*rows, newcomers={102: OWN_POLICY, 101: Policy()}))
    named = [dict(batch.newcomers) for batch in read_all(writer, limit=1)]
    assert named == [{101: Policy()}, {102: OWN_POLICY}, {}, {}]


def test_the_first_policy_of_a_newcomer_is_the_one_that_counts(writer: SpoolWriter) -> None:
    for seq, policy in ((1, OWN_POLICY), (2, Policy())):
        writer.write(batch_of(success(seq), newcomers={101: policy}))
    assert content(read_all(writer)).newcomers == {101: OWN_POLICY}


@pytest.mark.parametrize("column", range(6, 15))
def test_a_success_that_says_anything_more_is_kept_with_all_it_says(writer: SpoolWriter, column: int) -> None:
    row = (*success(1)[:column], failed(1)[column], *success(1)[column + 1 :])
    writer.write(batch_of(row))
    assert content(read_all(writer)).events == [row]


def test_the_last_failure_of_a_mark_may_be_missing(writer: SpoolWriter) -> None:
    marks = [
        first_failure_mark(1)._replace(last_failure=None),
        first_failure_mark(2)._replace(last_failure=FAILURE),
    ]
    writer.write(batch_of(success(1), success(2), marks=marks))
    assert content(read_all(writer)).marks == marks
