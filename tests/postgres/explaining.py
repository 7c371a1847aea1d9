"""What a statement does when it runs, as Postgres explains it."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect


async def explain_statement(connection: asyncpg.Connection, statement: Select[Any]) -> list[dict[str, Any]]:
    """Run a statement, and give the nodes of its plan that were executed."""
    text = str(statement.compile(dialect=dialect.dialect(), compile_kwargs={"literal_binds": True}))
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}")
    nodes, found = [json.loads(plan)[0]["Plan"]], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Actual Loops"] > 0:
            found.append(node)
    return found
