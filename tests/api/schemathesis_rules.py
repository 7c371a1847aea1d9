"""What no schema can say: which requests are valid although, or only if, more holds than the schema has words for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode

# Between them something is known at every instant: from the first event of the examples on, and until they were made.
LOG_BEGINS, LOG_ENDS = "2026-03-01T03:00:00Z", "2026-07-01T00:00:00Z"

BOTS = "/api/admin/system/bots/"
KNOWN = (101, 102, 103, 104)
MOST_BUCKETS = 1_400


@schemathesis.hook
def filter_case(_context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Leave out what is no valid request although its schema has nothing against it."""
    if case.meta is None or case.meta.generation.mode is GenerationMode.NEGATIVE:
        return True
    query: dict[str, Any] = dict(case.query or {})
    if "staged-resets" in case.path and not says_which(case, query):
        return False
    # Only what the API gave before is a version, and a breaker may have moved on since; ends are later than now.
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    if headers.get("if-match", "*") != "*" or (isinstance(case.body, dict) and case.body.get("expires_at")):
        return False
    # Only what the API gave before is a cursor or a place in the stream.
    if query.keys() & {"cursor", "after"} or "Last-Event-ID" in (case.headers or {}):
        return False
    is_history = case.path.endswith("/health/history")
    if not is_in_order(query.get("since"), query.get("until")) or (is_history and not is_short(query)):
        return False
    return is_in_order(LOG_BEGINS, query.get("at")) and is_in_order(query.get("at"), LOG_ENDS)


@schemathesis.hook
def map_path_parameters(
    context: schemathesis.HookContext, parameters: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Ask of users who are known: what they are called elsewhere is not found out for a resource of another name."""
    user_id = None if parameters is None else parameters.get("user_id")
    if parameters is None or not context.operation.path.startswith(BOTS) or not isinstance(user_id, int):
        return parameters
    return {**parameters, "user_id": KNOWN[user_id % len(KNOWN)]}


def says_which(case: schemathesis.Case, query: dict[str, Any]) -> bool:
    """Tell whether a staged reset is of some breakers, and not of all."""
    asked = query if case.path.endswith("/matches") else case.body if case.method == "POST" else None
    return not isinstance(asked, dict) or any(asked.get(name) is not None for name in ("error", "since"))


def is_short(query: dict[str, Any]) -> bool:
    """Tell whether a history has room in one answer."""
    if not isinstance(query.get("since"), str):
        return True
    since = datetime.fromisoformat(query["since"])
    until = (
        datetime.fromisoformat(query["until"]) if isinstance(query.get("until"), str) else datetime.now(UTC)
    )
    return until - since < timedelta(**{f"{query.get('bucket', 'hour')}s": MOST_BUCKETS})


def is_in_order(since: Any, until: Any) -> bool:
    if not isinstance(since, str) or not isinstance(until, str):
        return True
    return datetime.fromisoformat(since) <= datetime.fromisoformat(until)
