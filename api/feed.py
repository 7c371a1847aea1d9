"""The stream of transitions, for any number of readers of this process.

Postgres is asked by one task, and only while somebody reads. What it finds is encoded once, and kept as long as there is
room; a reader is a place in the log and nothing else, and takes from there what follows its place when it is ready for
more. A place that is not among the newest events is looked up in Postgres: that of a reader that fell behind or comes
back after a while, and one in a history that is no longer this database's. These readers share one connection, so that
many of them together take no more of Postgres than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import anyio

from breaker_store.api.newest import EncodedEvent, NewestEvents, first_chunk
from breaker_store.api.schemas.stream import encode_another_history, encode_started, encode_transition
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.feed import AnotherHistory, FeedCursor, TransitionFeed

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.05
AWAY_SECONDS: Final = 0.5
POLL_PAGE: Final = 100
LOOK_UP_PAGE: Final = 50


class Feed:
    """The newest transitions, and those who read them.

    Attributes:
        ending: once it is set, all streams end, and no other begins.

    """

    def __init__(self, database_url: str) -> None:
        self.ending = anyio.Event()
        self._database_url = database_url
        self._past = TransitionFeed(database_url)
        self._newest: NewestEvents | None = None
        self._news = asyncio.Event()
        self._readers = 0
        self._following: asyncio.Task[None] | None = None

    async def find(self, asked: FeedCursor | None) -> FeedCursor | AnotherHistory:
        """Find where a reader begins; None is the present end.

        Raises:
            LogUnavailableError: the database can't be reached, or didn't answer in time.

        """
        return await self._past.find(asked)

    async def read(self, start: FeedCursor | AnotherHistory) -> AsyncIterator[bytes]:
        """Give events as they come, and while the database is away nothing, until the server ends."""
        self._enter()
        try:
            async for chunk in self._read(start):
                yield chunk
        finally:
            self._leave()

    async def close(self) -> None:
        """End all streams, and give the connections back."""
        self.ending.set()
        if self._following is not None:
            await asyncio.wait({self._following})
        await self._past.close()

    def _enter(self) -> None:
        self._readers += 1
        if self._following is None:
            self._newest = None
            self._following = asyncio.create_task(self._follow(), name="stream of transitions")

    def _leave(self) -> None:
        """Count a reader out; it may have been cancelled, so nothing is awaited."""
        self._readers -= 1
        if self._readers == 0 and self._following is not None:
            self._following.cancel()
            self._following = None

    async def _read(self, start: FeedCursor | AnotherHistory) -> AsyncIterator[bytes]:
        if isinstance(start, AnotherHistory):
            cursor, text = encode_another_history(start)
        else:
            cursor, text = start, encode_started(start)
        yield text
        while not self.ending.is_set():
            # Before the look at what is there: news that come while it lasts are not missed.
            news = self._news
            events = await self._after(cursor)
            if events:
                yield b"".join(event.text for event in events)
                cursor = events[-1].cursor
            elif events is not None:
                await news.wait()

    async def _after(self, cursor: FeedCursor) -> list[EncodedEvent] | None:
        """Give what follows a reader's place, of the newest events or from Postgres; None while that is away."""
        events = None if self._newest is None else self._newest.after(cursor)
        if events is not None:
            return events
        try:
            page = await self._past.read(cursor, LOOK_UP_PAGE)
        except LogUnavailableError:
            await self._pause(AWAY_SECONDS)
            return None
        if isinstance(page, AnotherHistory):
            return [encode_another_history(page)]
        # The rest is read again: a slow reader would keep it for long.
        return first_chunk(map(encode_transition, page))

    async def _follow(self) -> None:
        feed = TransitionFeed(self._database_url)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._poll, feed)
                await self.ending.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._tell()
            await feed.close()
            if self._readers == 0:
                await self._past.close()

    async def _poll(self, feed: TransitionFeed) -> None:
        away = False
        while True:
            try:
                more = await self._take_in(feed)
            except LogUnavailableError as error:
                if not away:
                    logger.warning("the stream of transitions stands still for now: %s", error)
                away, more = True, False
            except Exception:
                # A defect of ours; the readers are told nothing wrong, and the next look may do better.
                if not away:
                    logger.exception("a transition can't be put on the stream")
                away, more = True, False
            else:
                away = False
            if not more:
                await self._pause(AWAY_SECONDS if away else POLL_SECONDS)

    async def _take_in(self, feed: TransitionFeed) -> bool:
        """Take in what is new; tell whether there may be more."""
        # Looked at once: a task that was told to end may still come to here when the next one has begun.
        newest = self._newest
        if newest is None:
            self._newest = NewestEvents(await feed.last())
        else:
            page = await feed.read(newest.end, POLL_PAGE)
            if isinstance(page, AnotherHistory):
                logger.warning(
                    "the database has another history than before: it was restored, or failed over"
                )
                self._newest = NewestEvents(page.last)
            elif page:
                for item in page:
                    newest.add(encode_transition(item))
            else:
                return False
        self._tell()
        return True

    def _tell(self) -> None:
        """Wake all readers that wait."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.ending.wait()
