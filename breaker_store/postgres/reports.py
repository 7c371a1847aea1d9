"""What a writer says of its recording, every few seconds: one row a writer, beside the log."""

from __future__ import annotations

from typing import Final

from breaker_store.core.cleaning import clean_name, clean_text
from breaker_store.ports import RecorderReport
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.connecting import Connection

# A new writer clears away what nobody has reported on for long; all others only find that they are none.
_LEAVE_REPORT: Final = """
WITH forgotten AS (
    DELETE FROM recorders
    WHERE reported_at < clock_timestamp() - interval '30 days'
        AND NOT EXISTS (SELECT FROM recorders WHERE writer_id = $1)
)
INSERT INTO recorders (
    writer_id, host, pid, started_at, durability, queued, flushed, spooled, set_aside, lost, lost_why,
    oldest_waiting_us, last_error, ended
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (writer_id) DO UPDATE SET
    host = excluded.host,
    pid = excluded.pid,
    started_at = excluded.started_at,
    reported_at = excluded.reported_at,
    durability = excluded.durability,
    queued = excluded.queued,
    flushed = excluded.flushed,
    spooled = excluded.spooled,
    set_aside = excluded.set_aside,
    lost = excluded.lost,
    lost_why = excluded.lost_why,
    oldest_waiting_us = excluded.oldest_waiting_us,
    last_error = excluded.last_error,
    ended = excluded.ended
"""


async def leave_report(connection: Connection, report: RecorderReport) -> None:
    """Put a report in the place of its writer's last one, with the database's time.

    A writer's first report deletes the rows that have not been reported for 30 days: the table is no log.
    """
    await connection.execute(
        _LEAVE_REPORT,
        report.writer_id,
        clean_name(report.host),
        report.pid,
        to_datetime(report.started_at),
        report.durability,
        report.queued,
        report.flushed,
        report.spooled,
        report.set_aside,
        report.lost,
        _clean(report.lost_why),
        report.oldest_waiting_us,
        _clean(report.last_error),
        report.ended,
    )


def _clean(text: str | None) -> str | None:
    return None if text is None else clean_text(text)
