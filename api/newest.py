"""The newest events of the stream, encoded once and shared by all who read it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from breaker_store.postgres.feed import FeedCursor

KEPT_BYTES: Final = 4 * 2**20
"""How much is kept; the newest event is kept however long it is."""

CHUNK_BYTES: Final = 2**16
"""How much a reader is handed at once, and so how much waits for one that is slow: so much, or one event."""


class EncodedEvent(NamedTuple):
    """An event as it goes over the wire, and the reader's place after it."""

    cursor: FeedCursor
    text: bytes


class NewestEvents:
    """Events without a gap, from a place in the log up to its end.

    Attributes:
        end: the place behind the last of them.

    """

    def __init__(self, end: FeedCursor) -> None:
        self.end = end
        self._begin = end
        self._events: deque[EncodedEvent] = deque()
        self._bytes = 0

    def add(self, event: EncodedEvent) -> None:
        """Take on the event that follows, and forget old ones for it."""
        self._events.append(event)
        self._bytes += len(event.text)
        self.end = event.cursor
        while self._bytes > KEPT_BYTES and len(self._events) > 1:
            forgotten = self._events.popleft()
            self._bytes -= len(forgotten.text)
            self._begin = forgotten.cursor

    def after(self, cursor: FeedCursor) -> list[EncodedEvent] | None:
        """Give the first chunk of what follows a place; None if that place is not in here: too old, or of elsewhere."""
        index = cursor.position - self._begin.position
        if not 0 <= index <= len(self._events):
            return None
        if cursor != (self._events[index - 1].cursor if index else self._begin):
            return None
        # By number from either end, since a deque is slow to walk: most readers are at its end.
        return first_chunk(self._events[number] for number in range(index, len(self._events)))


def first_chunk(events: Iterable[EncodedEvent]) -> list[EncodedEvent]:
    """Take events from the beginning up to the size of a chunk, at least one if there is one."""
    chunk: list[EncodedEvent] = []
    size = 0
    for event in events:
        size += len(event.text)
        if chunk and size > CHUNK_BYTES:
            break
        chunk.append(event)
    return chunk
