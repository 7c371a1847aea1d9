"""The breakers of all users: how they stand, an operator's reset, and how recording goes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from breaker_store import control
from breaker_store.api.dependencies import Actor, Reader, ReadyDatabase
from breaker_store.api.problems import describe_errors, describe_status
from breaker_store.api.schemas.breakers import (
    CircuitBreakerBody,
    MomentQuery,
    RecordersAnswer,
    RecordersQuery,
    ResetAnswer,
    ResetRequest,
    StateAnswer,
    SummaryAnswer,
)
from breaker_store.api.schemas.parameters import UserId
from breaker_store.control import ContendedBreakerError
from breaker_store.errors import (
    LogUnavailableError,
    SchemaError,
    UnknownBreakerError,
)
from breaker_store.postgres import queries, recorders, time_travel
from breaker_store.postgres.horizon import FutureError, HorizonError

PREFIX = "/api/admin/system/circuit-breakers"

router = APIRouter(
    prefix=PREFIX, tags=["circuit breakers"], responses=describe_errors(LogUnavailableError, SchemaError)
)

_SUMMARY_ERRORS = describe_errors(HorizonError, FutureError, RequestValidationError)
_STATE_ERRORS = describe_errors(UnknownBreakerError, HorizonError, FutureError, RequestValidationError)
_RESET_ERRORS = {
    **describe_errors(UnknownBreakerError, ContendedBreakerError, RequestValidationError),
    **describe_status(HTTPStatus.BAD_REQUEST, "The body is no text in UTF-8"),
}


# Before the routes with a user's id, which would take the words for one.
@router.get("/summary", responses=_SUMMARY_ERRORS)
async def summarize(connection: Reader, query: Annotated[MomentQuery, Query()]) -> SummaryAnswer:
    """Count the breakers by state, now or at an instant, and name those that are not closed."""
    if query.at is None:
        summary = await queries.summary(connection)
    else:
        summary = await time_travel.summary_at(connection, query.at)
    return SummaryAnswer(at=query.at, summary=summary)


@router.get("/recorders", responses=describe_errors(RequestValidationError))
async def list_recorders(connection: Reader, query: Annotated[RecordersQuery, Query()]) -> RecordersAnswer:
    """List how each process's recording goes, and what is missing in the log and why."""
    found = await recorders.recorders(connection, query.since_hours)
    return RecordersAnswer(recorders=found.recorders, truncated=found.truncated)


@router.get("/{user_id}", responses=_STATE_ERRORS)
async def show_state(
    connection: Reader, user_id: UserId, query: Annotated[MomentQuery, Query()]
) -> StateAnswer:
    """Show how a user's breaker stands, or stood at an instant."""
    if query.at is None:
        state = await queries.breaker_state(connection, user_id)
    else:
        state = await time_travel.breaker_state_at(connection, user_id, query.at)
    return StateAnswer(at=query.at, user_id=user_id, circuit_breaker=CircuitBreakerBody.model_validate(state))


@router.post("/{user_id}/reset", responses=_RESET_ERRORS)
async def reset(
    database: ReadyDatabase, actor: Actor, user_id: UserId, body: ResetRequest | None = None
) -> ResetAnswer:
    """Close a user's breaker; the processes that run it take that on within a second."""
    reason = None if body is None else body.reason
    state = await control.reset(database.url, user_id, actor=actor, reason=reason)
    return ResetAnswer(
        message=f"Circuit breaker reset for user {user_id}",
        circuit_breaker=CircuitBreakerBody.model_validate(state),
    )
