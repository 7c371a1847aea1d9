"""All breakers, and all their transitions, in pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from breaker_store.api.dependencies import Reader
from breaker_store.api.problems import describe_errors
from breaker_store.api.routers.circuit_breakers import PREFIX
from breaker_store.api.schemas.lists import (
    BreakersAnswer,
    BreakersQuery,
    TransitionListAnswer,
    TransitionListQuery,
)
from breaker_store.errors import LogUnavailableError, SchemaError
from breaker_store.postgres.breaker_list import list_breakers as read_breakers
from breaker_store.postgres.cursors import CursorError, write_optional
from breaker_store.postgres.transition_list import list_transitions

router = APIRouter(
    prefix=PREFIX, tags=["circuit breakers"], responses=describe_errors(LogUnavailableError, SchemaError)
)

_LIST_ERRORS = describe_errors(CursorError, RequestValidationError)


@router.get("/", include_in_schema=False)
@router.get("", responses=_LIST_ERRORS)
async def list_breakers(connection: Reader, query: Annotated[BreakersQuery, Query()]) -> BreakersAnswer:
    """List breakers: those that changed last first, those that tripped most, or all in the order of users."""
    page = await read_breakers(connection, query.to_filter())
    return BreakersAnswer(breakers=page.items, next_cursor=write_optional(page.next_cursor))


@router.get("/transitions", responses=_LIST_ERRORS)
async def list_all_transitions(
    connection: Reader, query: Annotated[TransitionListQuery, Query()]
) -> TransitionListAnswer:
    """List how all breakers changed and why, newest first."""
    page = await list_transitions(connection, query.to_filter())
    return TransitionListAnswer(transitions=page.items, next_cursor=write_optional(page.next_cursor))
