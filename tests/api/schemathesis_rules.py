"""What no schema can say: which requests are valid although, or only if, more holds than the schema has words for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode


@schemathesis.hook
def filter_case(_context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Leave out what is no valid request although its schema has nothing against it."""
    if case.meta is None or case.meta.generation.mode is GenerationMode.NEGATIVE:
        return True
    query: dict[str, Any] = dict(case.query or {})
    return "cursor" not in query and is_in_order(query.get("since"), query.get("until"))


def is_in_order(since: Any, until: Any) -> bool:
    if not isinstance(since, str) or not isinstance(until, str):
        return True
    return datetime.fromisoformat(since) <= datetime.fromisoformat(until)
