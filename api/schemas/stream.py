"""The events of the stream, as they go over the wire.

They all have names of their own (`event:`), and none is called `message`, `open` or `error`: a browser's `EventSource`
has meanings for these. So a page listens to each kind by itself, and what a later version adds disturbs nobody.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sse_starlette import ServerSentEvent

from breaker_store.api.newest import EncodedEvent
from breaker_store.postgres.feed import AnotherHistory, FeedCursor, FeedItem
from breaker_store.postgres.history import TransitionItem

RECONNECT_MILLISECONDS: Final = 2_000
"""How long a browser waits before it connects again."""

SEPARATOR: Final = "\n"

_ADVICE: Final = (
    "This database has another history than the one you read: it was restored, or another took its place."
    " Read the state anew; the events go on behind last_position."
)

_transition: Final = TypeAdapter(TransitionItem)


class StreamQuery(BaseModel):
    """Where the stream begins. A parameter that isn't known is refused: a mistyped one would begin elsewhere."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(
        None,
        description="The `id` of an event, or a position alone: the stream goes on behind it; 0 begins with the first "
        "transition of all. Without it, and without the header, it begins now.",
        examples=["0", "17", "17.5921-203"],
    )


class Started(BaseModel):
    """Where the stream begins: behind this event, which has been seen or is not wanted."""

    position: int = Field(description="0 before the first transition.")
    event: str | None = Field(description="The id of the event that stands there.")


class Place(BaseModel):
    position: int
    event: str | None = Field(description="The id of the event; null where only the position was given.")


class HistoryChanged(BaseModel):
    """The log is not the one that was read so far."""

    asked: Place = Field(description="The last that was seen.")
    found: str | None = Field(description="The event that has that position now; null if the log is shorter.")
    last_position: int = Field(description="The end of the log, behind which the stream goes on.")
    detail: str


def describe_event() -> dict[str, Any]:
    """Give the schema of one event, for the documentation: `itemSchema`, as OpenAPI 3.2 has it for such streams."""
    changed = HistoryChanged.model_json_schema()
    # What is referred to would be looked for in the document, not in here.
    changed["properties"]["asked"] = changed.pop("$defs")["Place"]
    return {
        "oneOf": [
            _describe("started", Started.model_json_schema()),
            _describe("transition", {"$ref": "#/components/schemas/TransitionItem"}),
            _describe("another_history", changed),
        ]
    }


def _describe(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["event", "id", "data"],
        "properties": {
            "event": {"const": name},
            "id": {"type": "string", "description": "A position, and the event there."},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": content},
            "retry": {"type": "integer", "description": "Milliseconds until a browser comes back."},
        },
    }


def encode_started(cursor: FeedCursor) -> bytes:
    body = Started(position=cursor.position, event=_written(cursor))
    return _encode("started", cursor, body.model_dump_json(), RECONNECT_MILLISECONDS)


def encode_transition(item: FeedItem) -> EncodedEvent:
    data = _transition.dump_json(item.transition).decode()
    return EncodedEvent(item.cursor, _encode("transition", item.cursor, data))


def encode_another_history(news: AnotherHistory) -> EncodedEvent:
    body = HistoryChanged(
        asked=Place(position=news.asked.position, event=_written(news.asked)),
        found=None if news.found is None else str(news.found),
        last_position=news.last.position,
        detail=_ADVICE,
    )
    text = _encode("another_history", news.last, body.model_dump_json(), RECONNECT_MILLISECONDS)
    return EncodedEvent(news.last, text)


def _encode(name: str, cursor: FeedCursor, data: str, retry: int | None = None) -> bytes:
    return ServerSentEvent(data, event=name, id=str(cursor), retry=retry, sep=SEPARATOR).encode()


def _written(cursor: FeedCursor) -> str | None:
    return None if cursor.event_id is None else str(cursor.event_id)
