"""The breakers of all users: how they stand, what an operator does to one, and how recording goes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError

from breaker_store import control
from breaker_store.api.dependencies import Actor, Reader, ReadyDatabase
from breaker_store.api.preconditions import TAGGED, Expected, tag
from breaker_store.api.problems import describe_errors, describe_status
from breaker_store.api.schemas.breakers import (
    ActionAnswer,
    ActionRequest,
    ForceOpenRequest,
    MomentQuery,
    PolicyRequest,
    RecordersAnswer,
    RecordersQuery,
    StateAnswer,
    SummaryAnswer,
    describe_standing,
)
from breaker_store.api.schemas.parameters import UserId
from breaker_store.control import ChangedBreakerError, ContendedBreakerError, ExpiryError
from breaker_store.errors import (
    LogUnavailableError,
    NotForcedOpenError,
    SchemaError,
    SuspendedError,
    UnknownBreakerError,
)
from breaker_store.postgres import queries, recorders, time_travel
from breaker_store.postgres.horizon import FutureError, HorizonError
from breaker_store.postgres.standing import Standing, read_standing

PREFIX = "/api/admin/system/circuit-breakers"

router = APIRouter(
    prefix=PREFIX, tags=["circuit breakers"], responses=describe_errors(LogUnavailableError, SchemaError)
)

_SUMMARY_ERRORS = describe_errors(HorizonError, FutureError, RequestValidationError)
_STATE_ERRORS = describe_errors(UnknownBreakerError, HorizonError, FutureError, RequestValidationError)
_CONTENTION = describe_errors(ContendedBreakerError)
_BODILESS_ERRORS = describe_errors(UnknownBreakerError, ChangedBreakerError, RequestValidationError)
_ACTION_ERRORS = {
    **_BODILESS_ERRORS,
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


@router.get("/{user_id}", responses=TAGGED | _STATE_ERRORS)
async def show_state(
    connection: Reader, response: Response, user_id: UserId, query: Annotated[MomentQuery, Query()]
) -> StateAnswer:
    """Show how a user's breaker stands, or stood at an instant."""
    if query.at is None:
        standing = await read_standing(connection, user_id)
        tag(response, standing.version)
    else:
        standing = await time_travel.read_standing_at(connection, user_id, query.at)
    return StateAnswer(at=query.at, user_id=user_id, **describe_standing(standing))


@router.post(
    "/{user_id}/reset",
    responses=TAGGED | _ACTION_ERRORS | describe_errors(ContendedBreakerError, SuspendedError),
)
async def reset(  # noqa: PLR0913, PLR0917 - what FastAPI hands it
    database: ReadyDatabase,
    actor: Actor,
    expected: Expected,
    response: Response,
    user_id: UserId,
    body: ActionRequest | None = None,
) -> ActionAnswer:
    """Close a user's breaker; the processes that run it take that on within a second."""
    reason = None if body is None else body.reason
    standing = await control.reset(database.url, user_id, expected=expected, actor=actor, reason=reason)
    return _answer(response, standing, f"Circuit breaker reset for user {user_id}")


@router.post(
    "/{user_id}/force-open",
    responses=TAGGED
    | _ACTION_ERRORS
    | describe_errors(ContendedBreakerError, SuspendedError, ExpiryError, RequestValidationError),
)
async def force_open(  # noqa: PLR0913, PLR0917 - what FastAPI hands it
    database: ReadyDatabase,
    actor: Actor,
    expected: Expected,
    response: Response,
    user_id: UserId,
    body: ForceOpenRequest | None = None,
) -> ActionAnswer:
    """Open a user's breaker, whatever its state, until it is released or the time is over; once more sets another end."""
    wanted = body or ForceOpenRequest.model_validate({})
    standing = await control.force_open(
        database.url,
        user_id,
        for_seconds=wanted.expires_in_seconds,
        until=wanted.expires_at,
        expected=expected,
        actor=actor,
        reason=wanted.reason,
    )
    return _answer(response, standing, f"Circuit breaker forced open for user {user_id}")


@router.post(
    "/{user_id}/release",
    responses=TAGGED
    | _ACTION_ERRORS
    | describe_errors(ContendedBreakerError, SuspendedError, NotForcedOpenError),
)
async def release(  # noqa: PLR0913, PLR0917 - what FastAPI hands it
    database: ReadyDatabase,
    actor: Actor,
    expected: Expected,
    response: Response,
    user_id: UserId,
    body: ActionRequest | None = None,
) -> ActionAnswer:
    """Close a user's breaker that is forced open."""
    reason = None if body is None else body.reason
    standing = await control.release(database.url, user_id, expected=expected, actor=actor, reason=reason)
    return _answer(response, standing, f"Circuit breaker released for user {user_id}")


@router.put("/{user_id}/policy", responses=TAGGED | _ACTION_ERRORS | _CONTENTION)
async def set_policy(  # noqa: PLR0913, PLR0917 - what FastAPI hands it
    database: ReadyDatabase,
    actor: Actor,
    expected: Expected,
    response: Response,
    user_id: UserId,
    body: PolicyRequest,
) -> ActionAnswer:
    """Give a user rules of their own: what is left out stays as it is in force, and is theirs from then on too."""
    standing = await control.set_policy(
        database.url, user_id, body.changes(), expected=expected, actor=actor, reason=body.reason
    )
    return _answer(response, standing, f"Policy set for user {user_id}")


@router.delete("/{user_id}/policy", responses=TAGGED | _BODILESS_ERRORS | _CONTENTION)
async def clear_policy(
    database: ReadyDatabase, actor: Actor, expected: Expected, response: Response, user_id: UserId
) -> ActionAnswer:
    """Let the default hold for a user again, as each program sets it."""
    standing = await control.clear_policy(database.url, user_id, expected=expected, actor=actor)
    return _answer(response, standing, f"Default policy restored for user {user_id}")


def _answer(response: Response, standing: Standing, message: str) -> ActionAnswer:
    tag(response, standing.version)
    return ActionAnswer(message=message, **describe_standing(standing))
