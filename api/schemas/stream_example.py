"""What the documentation shows of the stream: a transition that was, encoded as all are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from breaker_store.api.schemas.stream import encode_another_history, encode_started, encode_transition
from breaker_store.core.events import EventId
from breaker_store.core.policy import Policy
from breaker_store.postgres.feed import AnotherHistory, FeedCursor, FeedItem
from breaker_store.postgres.history import Cause, TransitionItem

_WRITER: Final = 6_044_316_523_417_104_385

_STARTED: Final = FeedCursor(16, EventId(_WRITER, 190))
_OPENED: Final = FeedCursor(17, EventId(_WRITER, 203))
_RESTORED: Final = FeedCursor(12, EventId(_WRITER, 151))

_TRANSITION: Final = TransitionItem(
    id=str(_OPENED.event_id),
    user_id=101,
    kind="opened",
    at=datetime(2026, 1, 31, 12, 0, 0, 140_000, UTC),
    from_state="closed",
    to_state="open",
    generation=3,
    era=718_281_828,
    version=5,
    position=_OPENED.position,
    superseded=False,
    reason=None,
    actor=None,
    failure_count=5,
    causes=[
        Cause(
            id=f"{_WRITER}-{number}",
            at=datetime(2026, 1, 31, 11, 59, 55 + number - 198, 20_000, UTC),
            error_type="Unauthorized",
            error_message="401: the token was revoked",
            operation="send_message",
            duration_ms=41.2,
        )
        for number in range(198, 203)
    ],
    opened_by=str(_OPENED.event_id),
    retry_at=datetime(2026, 1, 31, 12, 1, 0, 140_000, UTC),
    policy=Policy().to_document(),
)

EXAMPLE: Final = b"".join(
    (
        encode_started(_STARTED),
        encode_transition(FeedItem(_OPENED, _TRANSITION)).text,
        b": heartbeat\n\n",
        encode_another_history(AnotherHistory(_OPENED, None, _RESTORED)).text,
    )
).decode()
