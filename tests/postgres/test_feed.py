from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_store import BreakerStore, LogUnavailableError
from breaker_store.core.events import EventId
from breaker_store.postgres.feed import AnotherHistory, FeedCursor, FeedCursorError, TransitionFeed
from tests.postgres.proxy import Proxy

NUMBERS = st.integers(0, 2**63 - 1)


@given(st.integers(1, 2**63 - 1), st.none() | st.builds(EventId, NUMBERS, NUMBERS))
def test_a_cursor_is_read_as_it_was_written(position, event_id):
    cursor = FeedCursor(position, event_id)
    assert FeedCursor.read(str(cursor)) == cursor


@given(st.text() | st.from_regex(r"\d{1,20}(\.-?\d{1,20}--?\d{1,20})?", fullmatch=True))
def test_what_is_read_is_written_the_same_or_refused(text):
    try:
        cursor = FeedCursor.read(text)
    except FeedCursorError:
        return
    assert str(cursor) == text


@pytest.fixture
async def feed(database_url: str):
    feed = TransitionFeed(database_url)
    yield feed
    await feed.close()


async def reset(store: BreakerStore, count: int) -> None:
    for user_id in range(count):
        store.registry.get_breaker(user_id).reset()
    await store.flush()


async def test_pages_follow_one_another_without_a_gap(feed: TransitionFeed, store: BreakerStore):
    await reset(store, 5)
    cursor, positions = FeedCursor(0), []
    while page := await feed.read(cursor, 2):
        assert isinstance(page, list)
        positions += [item.transition.position for item in page]
        cursor = page[-1].cursor
    assert positions == [1, 2, 3, 4, 5]
    assert await feed.last() == cursor


async def test_an_empty_log_ends_where_it_begins(feed: TransitionFeed):
    assert await feed.find(None) == await feed.find(FeedCursor(0)) == FeedCursor(0)
    assert await feed.read(FeedCursor(0), 2) == []


async def test_a_position_alone_is_whatever_stands_there(feed: TransitionFeed, store: BreakerStore):
    await reset(store, 2)
    found = await feed.find(FeedCursor(1))
    [second] = await feed.read(found, 9)
    assert await feed.find(FeedCursor(2)) == second.cursor


async def test_another_event_at_a_position_is_another_history(feed: TransitionFeed, store: BreakerStore):
    await reset(store, 2)
    last = await feed.last()
    stranger, beyond = FeedCursor(1, EventId(1, 1)), FeedCursor(3, EventId(1, 1))
    [first, _] = await feed.read(FeedCursor(0), 9)
    for ask in (feed.find, lambda place: feed.read(place, 9)):
        assert await ask(stranger) == AnotherHistory(stranger, first.cursor.event_id, last)
        assert await ask(beyond) == AnotherHistory(beyond, None, last)


async def test_it_connects_again_after_a_cut(database_url: str, store: BreakerStore):
    async with Proxy.to(database_url) as proxy:
        feed = TransitionFeed(proxy.url)
        assert await feed.last() == FeedCursor(0)
        await proxy.close()
        with pytest.raises(LogUnavailableError):
            await feed.last()
        await proxy.open()
        await reset(store, 1)
        assert (await feed.last()).position == 1
        await feed.close()
