"""The route that ours is measured against, written by hand: FastAPI, asyncpg's pool, a Pydantic response model.

What a good engineer writes who wants one page of one user's history: the same query, parameters and answer as ours.
Served as `breaker-store serve` does it: `python -m tests.benchmarks.http_peer DATABASE_URL`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, Field

PREFIX = "/api/admin/system/circuit-breakers"
KINDS = {
    1: "success",
    2: "failure",
    3: "rejected",
    10: "opened",
    11: "half_opened",
    12: "closed",
    13: "reset",
}
VERDICTS = {0: "counted", 1: "late", 2: "refused"}

PAGE = """
SELECT * FROM (
    SELECT * FROM (
        SELECT * FROM breaker_outcomes WHERE user_id = $1
        ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC LIMIT $2
    ) AS outcomes
    UNION ALL
    SELECT * FROM (
        SELECT * FROM breaker_transitions WHERE user_id = $1
        ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC LIMIT $2
    ) AS transitions
) AS events
ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC LIMIT $2
"""


class Event(BaseModel):
    id: str
    kind: str
    at: datetime
    generation: int
    verdict: str | None
    duration_ms: float | None
    operation: str | None
    error_type: str | None
    error_message: str | None
    count: int | None
    attempt: int | None
    trace_id: UUID | None
    probe: int | None
    from_state: str | None
    to_state: str | None
    reason: str | None
    actor: str | None


class History(BaseModel):
    status: Literal["ok"] = "ok"
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    user_id: int
    events: list[Event]
    next_cursor: str | None


def read_event(row: asyncpg.Record) -> Event:
    details: dict[str, Any] = json.loads(row["details"]) if row["details"] else {}
    return Event(
        id=f"{row['writer_id']}-{row['writer_seq']}",
        kind=KINDS[row["kind"]],
        at=row["occurred_at"],
        generation=row["generation"],
        verdict=None if row["verdict"] is None else VERDICTS[row["verdict"]],
        duration_ms=None if row["duration_us"] is None else row["duration_us"] / 1000,
        operation=row["operation"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        count=row["count"],
        attempt=row["attempt"],
        trace_id=row["trace_id"],
        probe=row["probe"],
        from_state=details.get("from"),
        to_state=details.get("to"),
        reason=details.get("reason"),
        actor=details.get("actor"),
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(app.state.database_url) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.get(PREFIX + "/{user_id}/events")
async def list_events(
    request: Request, user_id: int, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> History:
    async with request.app.state.pool.acquire() as connection:
        rows = await connection.fetch(PAGE, user_id, limit + 1)
    if not rows:
        raise HTTPException(404)
    last = rows[limit - 1] if len(rows) > limit else None
    return History(
        user_id=user_id,
        events=[read_event(row) for row in rows[:limit]],
        next_cursor=last and f"{last['occurred_at']:%s%f}.{last['writer_id']}.{last['writer_seq']}",
    )


async def serve(database_url: str) -> None:
    app.state.database_url = database_url
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As it is where uvicorn listens by itself: no part of an answer waits for another's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", ws="none"))
        await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
