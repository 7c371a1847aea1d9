"""Checks of the recording: what the processes said last."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from breaker_store.diagnosis.finding import Finding, ok, warning, wrong
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.recorders import DEFAULT_HOURS, SILENT_AFTER

_RECORDERS: Final = """
SELECT count(*) FILTER (WHERE NOT ended AND reported_at < now() - $1::interval) AS silent,
    count(*) FILTER (WHERE NOT ended AND reported_at >= now() - $1::interval) AS recording,
    count(*) FILTER (WHERE lost > 0 OR set_aside > 0) AS troubled,
    coalesce(sum(lost), 0)::bigint AS lost,
    coalesce(sum(set_aside), 0)::bigint AS set_aside
FROM recorders WHERE reported_at >= now() - $2::interval
"""


async def check_recorders(connection: Connection) -> Finding:
    """Tell whether a process has fallen silent in the last day."""
    row = await connection.fetchrow(_RECORDERS, SILENT_AFTER, timedelta(hours=DEFAULT_HOURS))
    found = f"{row['recording']:,} processes record"
    if row["silent"]:
        return warning(
            "recorders",
            f"{found}, and {row['silent']:,} fell silent in the last {DEFAULT_HOURS} hours without a goodbye",
            "see `breaker-store recorders`; if they will not come back, `breaker-store deliver` their spools",
        )
    return ok("recorders", f"{found}, and none fell silent in the last {DEFAULT_HOURS} hours")


async def check_losses(connection: Connection) -> Finding:
    """Tell whether a process that reported in the last day has lost events, or set some aside."""
    row = await connection.fetchrow(_RECORDERS, SILENT_AFTER, timedelta(hours=DEFAULT_HOURS))
    if row["troubled"]:
        return wrong(
            "losses",
            f"{row['lost']:,} events are lost and {row['set_aside']:,} set aside, by {row['troubled']:,} processes",
            "see `breaker-store recorders` for the reason; what was set aside is in the spool's folder `aside`",
        )
    return ok("losses", f"no process that reported in the last {DEFAULT_HOURS} hours lost an event")


RECORDING_CHECKS: Final = (check_recorders, check_losses)
