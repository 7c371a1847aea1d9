"""What happened to one user's breaker, page by page.

These are the routes that are asked most, so they cost little: one statement without a transaction around it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from breaker_store.api.dependencies import Engine
from breaker_store.api.problems import describe_errors
from breaker_store.api.routers.circuit_breakers import PREFIX
from breaker_store.api.schemas.breakers import EventsAnswer, HistoryQuery, TransitionsAnswer, TransitionsQuery
from breaker_store.api.schemas.parameters import UserId
from breaker_store.errors import LogUnavailableError, SchemaError, UnknownBreakerError
from breaker_store.postgres import queries
from breaker_store.postgres.asking import ask
from breaker_store.postgres.cursors import CursorError, write_optional

router = APIRouter(
    prefix=PREFIX,
    tags=["circuit breakers"],
    responses=describe_errors(
        CursorError, UnknownBreakerError, RequestValidationError, LogUnavailableError, SchemaError
    ),
)


@router.get("/{user_id}/transitions")
async def list_transitions(
    engine: Engine, user_id: UserId, query: Annotated[TransitionsQuery, Query()]
) -> TransitionsAnswer:
    """List how a user's breaker changed and why, newest first."""
    wanted = query.to_filter()
    page = await ask(engine, lambda connection: queries.transitions(connection, user_id, wanted))
    return TransitionsAnswer(
        user_id=user_id, transitions=page.items, next_cursor=write_optional(page.next_cursor)
    )


@router.get("/{user_id}/events")
async def list_events(
    engine: Engine, user_id: UserId, query: Annotated[HistoryQuery, Query()]
) -> EventsAnswer:
    """List everything that happened to a user's breaker, newest first."""
    wanted = query.to_filter()
    page = await ask(engine, lambda connection: queries.events(connection, user_id, wanted))
    return EventsAnswer(user_id=user_id, events=page.items, next_cursor=write_optional(page.next_cursor))
