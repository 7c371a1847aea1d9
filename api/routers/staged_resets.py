"""Resets of many breakers, a few a second: asked for, watched and stopped. A server carries them out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from breaker_store.api.dependencies import Actor, Database, Reader, ReadyDatabase
from breaker_store.api.problems import describe_errors, describe_status
from breaker_store.api.routers.circuit_breakers import PREFIX
from breaker_store.api.schemas.staged_resets import (
    MatchesAnswer,
    MatchingQuery,
    StagedResetAnswer,
    StagedResetDetailsAnswer,
    StagedResetId,
    StagedResetRequest,
    StagedResetsAnswer,
)
from breaker_store.errors import LogUnavailableError, SchemaError
from breaker_store.postgres import staged_resets
from breaker_store.postgres.reading import reading
from breaker_store.postgres.staged_resets import NotStagedError, StagedResetItem, UnknownStagedResetError

router = APIRouter(
    prefix=f"{PREFIX}/staged-resets",
    tags=["staged resets"],
    responses=describe_errors(LogUnavailableError, SchemaError),
)

_CREATED = {"headers": {"Location": {"description": "Where it is watched.", "schema": {"type": "string"}}}}
_CREATE_ERRORS = {
    HTTPStatus.CREATED.value: _CREATED,
    **describe_errors(NotStagedError, RequestValidationError),
    **describe_status(HTTPStatus.BAD_REQUEST, "The body is no text in UTF-8"),
}
_ONE_ERRORS = describe_errors(UnknownStagedResetError, RequestValidationError)


@router.get("")
async def list_staged_resets(connection: Reader) -> StagedResetsAnswer:
    """List the staged resets, newest first."""
    return StagedResetsAnswer(staged_resets=await staged_resets.staged_resets(connection))


@router.post("", status_code=HTTPStatus.CREATED, responses=_CREATE_ERRORS)
async def stage_reset(
    database: ReadyDatabase, actor: Actor, body: StagedResetRequest, request: Request, response: Response
) -> StagedResetAnswer:
    """Reset the breakers that are like that now, a few a second, on this server or another one."""
    number = await staged_resets.stage_reset(
        database.url, body.to_filter(), body.per_second, actor=actor, reason=body.reason
    )
    path = request.app.url_path_for("show_staged_reset", staged_reset_id=number)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}{path}"
    return StagedResetAnswer(staged_reset=await _read(database, number))


# Before the one with a number, which would take the word for one.
@router.get("/matches", responses=describe_errors(RequestValidationError))
async def count_matches(connection: Reader, query: Annotated[MatchingQuery, Query()]) -> MatchesAnswer:
    """Count the breakers that a staged reset would have; nothing is staged."""
    matched = await staged_resets.count_matches(connection, query.to_filter())
    return MatchesAnswer(matched=matched, largest=staged_resets.LARGEST)


@router.get("/{staged_reset_id}", responses=_ONE_ERRORS)
async def show_staged_reset(connection: Reader, staged_reset_id: StagedResetId) -> StagedResetDetailsAnswer:
    """Show how far a staged reset is, and which breakers could not be reset."""
    item = await staged_resets.staged_reset(connection, staged_reset_id)
    failures = await staged_resets.first_failures(connection, item)
    return StagedResetDetailsAnswer(staged_reset=item, first_failures=failures)


@router.post("/{staged_reset_id}/stop", responses=_ONE_ERRORS)
async def stop_staged_reset(
    database: ReadyDatabase, actor: Actor, staged_reset_id: StagedResetId
) -> StagedResetAnswer:
    """Stop a staged reset for good: at most the breaker that is under way is still reset.

    It can't be resumed; stage another one. One that has ended stays as it is.
    """
    await staged_resets.stop_staged_reset(database.url, staged_reset_id, actor=actor)
    return StagedResetAnswer(staged_reset=await _read(database, staged_reset_id))


async def _read(database: Database, staged_reset_id: int) -> StagedResetItem:
    async with reading(database.engine) as connection:
        return await staged_resets.staged_reset(connection, staged_reset_id)
