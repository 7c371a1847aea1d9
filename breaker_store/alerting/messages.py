"""What is sent: messages made of the log alone, so that the same transitions give the same bytes under the same id.

Alertmanager gets an alert for each user, however many, since each recovers by itself; it makes one notification of them
by its own grouping. The labels of a recovery are those of what it ends, by which Alertmanager knows what is over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from breaker_store.alerting.configuration import Format, Webhook
from breaker_store.alerting.wording import describe_group
from breaker_store.core.alerting import AlertKind, Group, Notice, group_notices
from breaker_store.core.events import Failure

USERS_LISTED: Final = 100
"""How many users a message lists at most; it says how many they are in all."""

LARGEST_GROUP: Final = 10_000
LARGEST_POST_OF_ALERTS: Final = 1_000

ALERT_LASTS_US: Final = 30 * 86_400 * 1_000_000
"""When an alert ends by itself, if no recovery is told: Alertmanager would end one without an end in five minutes."""

_TEST_LASTS_US: Final = 60 * 1_000_000
_NO_ERROR: Final = "none"
_MESSAGE_LIMIT: Final = 500
_LATEST_US: Final = 250_000_000_000 * 1_000_000  # in the year 9892: a time that can still be written
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ALERT_NAMES: Final = {
    AlertKind.TRIPPED: "BreakerTripped",
    AlertKind.FORCED_OPEN: "BreakerForcedOpen",
    AlertKind.SUSPENDED: "BreakerSuspended",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What is posted once, and again until it is taken.

    Attributes:
        id: the same for the same transitions, so that a receiver can drop what it has already.
        mark: names this message and all before it in its window. Where messages are made otherwise, since the file or
            this code has changed, none has the mark of one that was made before, and so none is taken for done with.

    """

    id: str
    body: bytes
    mark: str = ""


def compose(webhook: Webhook, notices: Iterable[Notice]) -> Iterator[Message]:
    """Make the messages that tell a webhook of what happened, in the order to send them."""
    largest = LARGEST_POST_OF_ALERTS if webhook.format is Format.ALERTMANAGER else LARGEST_GROUP
    wanted = (notice for notice in notices if notice.kind in webhook.kinds)
    mark = ""
    for group in group_notices(wanted, largest):
        message_id = _identify(str(notice.event_id) for notice in group.notices)
        document = _document(webhook.format, message_id, group)
        if document:
            mark = _identify((mark, message_id))
            yield Message(message_id, _encode(document), mark)


def compose_test(webhook: Webhook, now_us: int) -> Message:
    """Make a message that says that it is a test."""
    message_id = f"test_{now_us}"
    text = f"This is a test of the webhook {webhook.name}: nothing has happened."
    if webhook.format is Format.CHAT:
        return Message(message_id, _encode({"text": text}))
    if webhook.format is Format.ALERTMANAGER:
        labels = {"alertname": "BreakerTest", "severity": "info"}
        return Message(message_id, _encode([_alert(labels, text, now_us, now_us + _TEST_LASTS_US)]))
    event = {"type": "breaker.test", "id": message_id, "timestamp": _time(now_us), "text": text}
    nobody: dict[str, Any] = {"error": None, "user_count": 0, "user_ids": [], "transitions": []}
    return Message(message_id, _encode(event | nobody))


def _identify(parts: Iterable[str]) -> str:
    """Name what consists of these; a message by its events, since another history has others at the same positions."""
    return f"msg_{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:32]}"


def _encode(document: Any) -> bytes:
    # In ASCII, so that no text of the log can be anything but JSON.
    return json.dumps(document, separators=(",", ":")).encode()


def _document(chosen: Format, message_id: str, group: Group) -> Any:
    match chosen:
        case Format.EVENT:
            return _event(message_id, group)
        case Format.CHAT:
            return {"text": describe_group(group)}
        case Format.ALERTMANAGER:
            return [alert for notice in group.notices for alert in _alerts(notice)]


def _event(message_id: str, group: Group) -> dict[str, Any]:
    listed = group.notices[:USERS_LISTED]
    return {
        "type": f"breaker.{group.kind}",
        "id": message_id,
        "timestamp": _time(max(notice.at for notice in group.notices)),
        "text": describe_group(group),
        "error": _shortened(group.error),
        "user_count": len(group.notices),
        "user_ids": [notice.user_id for notice in listed],
        "transitions": [_transition(notice) for notice in listed],
    }


def _transition(notice: Notice) -> dict[str, Any]:
    trip = notice.ended[0] if notice.ended else None
    return {
        "id": str(notice.event_id),
        "position": notice.position,
        "user_id": notice.user_id,
        "at": _time(notice.at),
        "reason": _shortened(notice.reason),
        "actor": _shortened(notice.actor),
        "cause": None if notice.cause is None else _cause(notice.cause),
        "tripped_at": None if trip is None else _time(trip.at),
        "tripped_by": None if trip is None else str(trip.event_id),
    }


def _cause(cause: Failure) -> dict[str, Any]:
    return {
        "id": str(cause.event_id),
        "at": _time(cause.at),
        "error_type": _shortened(cause.error_type),
        "error_message": _shortened(cause.error_message),
        "operation": _shortened(cause.operation),
    }


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= _MESSAGE_LIMIT:
        return text
    return text[: _MESSAGE_LIMIT - 1] + "…"


def _alerts(notice: Notice) -> Iterator[dict[str, Any]]:
    text = describe_group(Group(notice.kind, notice.error, [notice]))
    if notice.kind is not AlertKind.RECOVERED:
        yield _alert(_labels(notice), text, notice.at, notice.at + ALERT_LASTS_US)
    for opening in notice.ended:
        # The clocks of two processes differ, and what ends before it begins is refused.
        yield _alert(_labels(opening), text, opening.at, max(opening.at, notice.at))


def _labels(opening: Notice) -> dict[str, str]:
    """Name an opening by what is the same when it ends."""
    return {
        "alertname": _ALERT_NAMES[opening.kind],
        "user_id": str(opening.user_id),
        "error": _shortened(opening.error) or _NO_ERROR,
        "severity": "warning",
    }


def _alert(labels: dict[str, str], text: str, starts_at_us: int, ends_at_us: int) -> dict[str, Any]:
    return {
        "labels": labels,
        "annotations": {"summary": text},
        "startsAt": _time(starts_at_us),
        "endsAt": _time(ends_at_us),
    }


def _time(at_us: int) -> str:
    return f"{(_EPOCH + timedelta(microseconds=min(at_us, _LATEST_US))).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
