"""How the delivery of webhooks goes: for whoever asks, from any process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.postgres import tables
from breaker_store.postgres.connecting import connect


@dataclass(frozen=True, slots=True)
class WebhookItem:
    """How the delivery of a webhook goes.

    Attributes:
        behind: how many transitions of the log it has still to look at.
        delivering: whether a process is at it.
        delivered, refused: messages since it began; the receiver refused the latter for themselves.
        last_error: what was wrong last, at `last_error_at`; it may be over since.

    """

    name: str
    behind: int
    delivering: bool
    delivered: int
    refused: int
    last_delivered_at: datetime | None
    last_error_at: datetime | None
    last_error: str | None


async def webhook_items(connection: AsyncConnection) -> list[WebhookItem]:
    """List the webhooks that have begun, also those that no file names any more."""
    return [WebhookItem(**row) for row in (await connection.execute(_select_webhooks())).mappings()]


def _select_webhooks() -> Select[Any]:
    columns = tables.webhooks.c
    last = select(tables.log_position.c.last).scalar_subquery()
    return select(
        columns.name,
        func.greatest(last - columns.position, 0).label("behind"),
        (columns.leased_until > func.clock_timestamp()).label("delivering"),
        columns.delivered,
        columns.refused,
        columns.last_delivered_at,
        columns.last_error_at,
        columns.last_error,
    ).order_by(columns.name)


async def forget_webhook(database_url: str, name: str) -> bool:
    """Let a webhook begin anew, at the log's end, when it is delivered next; tell whether it had begun.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    connection = await connect(database_url, writing=True)
    try:
        return await connection.fetchval("DELETE FROM webhooks WHERE name = $1 RETURNING true", name) or False
    finally:
        await connection.close()
