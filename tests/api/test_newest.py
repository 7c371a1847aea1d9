from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from breaker_store.api.newest import CHUNK_BYTES, KEPT_BYTES, EncodedEvent, NewestEvents
from breaker_store.core.events import EventId
from breaker_store.postgres.feed import FeedCursor

WRITER = 5


def at(position: int, writer: int = WRITER) -> FeedCursor:
    return FeedCursor(position, EventId(writer, position))


def filled(first: int, sizes: list[int]) -> tuple[NewestEvents, list[EncodedEvent]]:
    events = [EncodedEvent(at(position), b"x" * size) for position, size in enumerate(sizes, first + 1)]
    newest = NewestEvents(at(first))
    for event in events:
        newest.add(event)
    return newest, events


@given(
    st.integers(0, 50),
    st.lists(st.one_of(st.integers(0, 100), st.sampled_from([CHUNK_BYTES, KEPT_BYTES // 3, KEPT_BYTES + 1]))),
)
def test_a_reader_gets_all_that_follows_its_place_or_is_sent_to_postgres(first, sizes):
    newest, events = filled(first, sizes)
    for index in range(len(events) + 1):
        cursor, read = at(first + index), []
        while chunk := newest.after(cursor):
            assert len(chunk) == 1 or sum(len(event.text) for event in chunk) <= CHUNK_BYTES
            read += chunk
            cursor = chunk[-1].cursor
        assert read in ([], events[index:])
        assert read or chunk is None or index == len(events)
    assert newest.end == at(first + len(events))
    assert newest.after(newest.end) == []


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_place_of_another_history_is_never_in_it(first, asked):
    newest, _ = filled(first, [10] * 10)
    assert newest.after(at(asked, WRITER + 1)) is None


def test_old_events_make_room_for_new_ones():
    newest, _ = filled(0, [1_000] * 10_000)
    kept = [position for position in range(10_001) if newest.after(at(position)) is not None]
    assert kept == list(range(10_000 - KEPT_BYTES // 1_000, 10_001))
