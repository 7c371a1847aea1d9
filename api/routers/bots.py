"""The bots of all users: which of them are suspended by a person."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response
from fastapi.exceptions import RequestValidationError

from breaker_store import control
from breaker_store.api.dependencies import Actor, ReadyDatabase
from breaker_store.api.preconditions import TAGGED, Expected, tag
from breaker_store.api.problems import describe_errors, describe_status
from breaker_store.api.schemas.breakers import ActionAnswer, ActionRequest, describe_standing
from breaker_store.api.schemas.parameters import UserId
from breaker_store.control import ChangedBreakerError, ContendedBreakerError
from breaker_store.errors import (
    LogUnavailableError,
    NotSuspendedError,
    SchemaError,
    UnknownBreakerError,
)
from breaker_store.postgres.standing import Standing

PREFIX: Final = "/api/admin/system/bots"

router = APIRouter(prefix=PREFIX, tags=["bots"], responses=describe_errors(LogUnavailableError, SchemaError))

_ERRORS: Final = {
    **describe_errors(UnknownBreakerError, ChangedBreakerError, RequestValidationError),
    **describe_status(HTTPStatus.BAD_REQUEST, "The body is no text in UTF-8"),
}


@router.post("/{user_id}/suspend", responses=TAGGED | _ERRORS | describe_errors(ContendedBreakerError))
async def suspend(  # noqa: PLR0913, PLR0917 - what FastAPI hands it
    database: ReadyDatabase,
    actor: Actor,
    expected: Expected,
    response: Response,
    user_id: UserId,
    body: ActionRequest | None = None,
) -> ActionAnswer:
    """Refuse all calls of a user's bot, with this reason, until it is resumed; once more says another reason."""
    reason = None if body is None else body.reason
    standing = await control.suspend(database.url, user_id, expected=expected, actor=actor, reason=reason)
    return _answer(response, standing, f"Bot suspended for user {user_id}")


@router.post(
    "/{user_id}/resume",
    responses=TAGGED | _ERRORS | describe_errors(ContendedBreakerError, NotSuspendedError),
)
async def resume(  # noqa: PLR0913, PLR0917 - what FastAPI hands it
    database: ReadyDatabase,
    actor: Actor,
    expected: Expected,
    response: Response,
    user_id: UserId,
    body: ActionRequest | None = None,
) -> ActionAnswer:
    """Let a suspended bot make calls again: its breaker is closed, and nothing counted."""
    reason = None if body is None else body.reason
    standing = await control.resume(database.url, user_id, expected=expected, actor=actor, reason=reason)
    return _answer(response, standing, f"Bot resumed for user {user_id}")


def _answer(response: Response, standing: Standing, message: str) -> ActionAnswer:
    tag(response, standing.version)
    return ActionAnswer(message=message, **describe_standing(standing))
