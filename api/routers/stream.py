"""The transitions of all breakers as they come, as server-sent events.

The framing, the heartbeats and the end of streams with their server are `sse-starlette`'s. FastAPI's own server-sent events
would encode every event once for each reader and pass it through two queues of that reader's, send a comment every
15 seconds and no other way, and keep a server that is told to end from ending.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from fastapi.exceptions import RequestValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent

from breaker_store.api.dependencies import ReadyDatabase, TransitionStream
from breaker_store.api.problems import describe_errors
from breaker_store.api.routers.circuit_breakers import PREFIX
from breaker_store.api.schemas.stream import SEPARATOR, StreamQuery, describe_event
from breaker_store.errors import LogUnavailableError, SchemaError
from breaker_store.postgres.cursors import CursorError
from breaker_store.postgres.feed import FeedCursor

HEARTBEAT_SECONDS: Final = 5
END_SECONDS: Final = 1

_DESCRIPTION: Final = """\
Events in the order of their positions, without an end:

- `started`, the first of a connection, says behind which position it begins;
- `transition`, with what `GET /{user_id}/transitions` gives of one as its data;
- `another_history`, on resuming (then it is the first) or while connected: the database was restored, or another took
  its place, and what was seen last is not in it. The stream goes on behind `last_position`; states that were learnt from
  it have to be read anew.

Comments come as heartbeats, every 5 seconds, also while the database is away.
"""

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": _DESCRIPTION,
        "content": {
            "text/event-stream": {
                "itemSchema": describe_event(),
            }
        },
    },
    **describe_errors(CursorError, RequestValidationError, LogUnavailableError, SchemaError),
}

router = APIRouter(prefix=PREFIX, tags=["circuit breakers"])


@router.get("/transitions/stream", responses=_ANSWERS, response_class=EventSourceResponse)
async def stream_transitions(
    _database: ReadyDatabase,
    stream: TransitionStream,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="The `id` of the last event seen, as browsers send it when they come back; it wins over `after`. "
            "What is none of ours is refused, and a browser then gives up: it would not know what it missed.",
        ),
    ] = None,
) -> EventSourceResponse:
    """Follow all breakers' transitions as they are committed; each comes once, also over cuts and restarts."""
    # An empty header is what clients send that have seen nothing yet.
    asked = last_event_id or query.after
    start = await stream.find(None if asked is None else FeedCursor.read(asked))
    return EventSourceResponse(
        stream.read(start),
        sep=SEPARATOR,
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=make_heartbeat,
        shutdown_event=stream.ending,
        shutdown_grace_period=END_SECONDS,
    )


def make_heartbeat() -> ServerSentEvent:
    return ServerSentEvent(comment="heartbeat", sep=SEPARATOR)
