"""Notices and webhooks, made by hand."""

from __future__ import annotations

from typing import Any

from breaker_store.alerting.configuration import Format, Webhook
from breaker_store.core.alerting import AlertKind, Notice
from breaker_store.core.events import EventId, Failure

SECOND = 1_000_000
START = 1_764_150_000 * SECOND  # 2025-11-26T09:40:00Z
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def webhook(chosen: Format = Format.EVENT, **options: Any) -> Webhook:
    options = {"url": "https://example.com/hook", "secret": SECRET, "group_seconds": 0.0} | options
    return Webhook("team", format=chosen, **options)


def trip(
    user_id: int = 101,
    *,
    seconds: float = 0,
    error: str | None = "Unauthorized",
    message="revoked",
    reason="5 failures in a row",
) -> Notice:
    at = START + round(seconds * SECOND)
    event_id = EventId(7, 2 * user_id)
    cause = Failure(EventId(7, 2 * user_id - 1), at, error, message, "send")
    return Notice(AlertKind.TRIPPED, user_id, user_id, event_id, at, reason, None, cause)


def recovery(ended: Notice, *, after: float = 65, reason="2 probes in a row succeeded", actor=None) -> Notice:
    at = ended.at + round(after * SECOND)
    event_id = EventId(7, 1_000_000 + ended.user_id)
    return Notice(
        AlertKind.RECOVERED,
        ended.user_id,
        1_000_000 + ended.user_id,
        event_id,
        at,
        reason,
        actor,
        ended=(ended,),
    )
