"""What trips came after, and what came of actions: read from the transitions next to them.

One look-up in the index of a user's versions for each, and none for a page on which there is no trip and no action.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from breaker_store.core.events import IMMATERIAL, CircuitState, Kind
from breaker_store.core.sequel import ACTIONS, Link, remark
from breaker_store.postgres.codec import microseconds
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.stored_events import list_kinds, read_time

_REMARKABLE: Final = frozenset({Kind.OPENED, *ACTIONS})

_LINK: Final = "SELECT version, kind, occurred_at, details FROM breaker_transitions"
_CHAIN: Final = "user_id = asked.user_id AND position IS NOT NULL"
_PASSED_OVER: Final = f"kind NOT IN ({list_kinds(IMMATERIAL)})"

_AROUND: Final = f"""
SELECT
    asked.user_id, asked.version AS asked, near.version, near.kind, near.occurred_at, clock_timestamp() AS now,
    near.details ->> 'from' AS from_state, near.details ->> 'to' AS to_state, near.details ->> 'actor' AS actor,
    near.details ->> 'retry_at' AS retry_at
FROM unnest($1::bigint[], $2::integer[]) AS asked (user_id, version)
CROSS JOIN LATERAL (
    ({_LINK} WHERE {_CHAIN} AND version < asked.version AND {_PASSED_OVER} ORDER BY version DESC LIMIT 1)
    UNION ALL
    ({_LINK} WHERE {_CHAIN} AND version = asked.version)
    UNION ALL
    ({_LINK} WHERE {_CHAIN} AND version > asked.version AND {_PASSED_OVER} ORDER BY version LIMIT 2)
) AS near
ORDER BY near.version
"""


class Place(NamedTuple):
    """Where a transition stands: in whose chain, and at which version."""

    user_id: int
    version: int


def is_remarkable(kind: int, position: int | None) -> bool:
    """Tell whether there may be something to say of an event; of what was superseded there is not."""
    return position is not None and kind in _REMARKABLE


async def read_remarks(connection: Connection, places: Iterable[Place]) -> dict[Place, str]:
    """Give what is to say of transitions that won, where there is anything."""
    asked = list(places)
    if not asked:
        return {}
    rows = await connection.fetch(
        _AROUND, [place.user_id for place in asked], [place.version for place in asked]
    )
    around: defaultdict[Place, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        around[Place(row["user_id"], row["asked"])].append(row)
    remarks = {place: _remark(place.version, near) for place, near in around.items()}
    return {place: text for place, text in remarks.items() if text is not None}


def _remark(version: int, near: list[Mapping[str, Any]]) -> str | None:
    before = [_link(row) for row in near if row["version"] < version]
    after = [_link(row) for row in near if row["version"] > version]
    [link] = [_link(row) for row in near if row["version"] == version]
    return remark(link, before[0] if before else None, after, microseconds(near[0]["now"]))


def _link(row: Mapping[str, Any]) -> Link:
    """Read one with patience: what a newer version wrote ends what can be told."""
    at = microseconds(row["occurred_at"])
    try:
        return Link(
            kind=Kind(row["kind"]),
            at=at,
            from_state=CircuitState(row["from_state"]),
            to_state=CircuitState(row["to_state"]),
            actor=row["actor"],
            retry_at=read_time(row["retry_at"]),
        )
    except ValueError:
        return Link(Kind.UNRECOGNIZED, at, CircuitState.CLOSED, CircuitState.CLOSED)
