"""Errors as problem details (RFC 9457): what each error of the library becomes, and what the documentation says of it.

Written here and not taken from a library: those that were alive in 2026 are small and do less than is needed or more.
`fastapi-problem` gives no `instance`, `fastapi-problem-details` puts the text of an unexpected error into the answer,
and `fastapi-rfc9457` answers what is wrong with a parameter in an extension alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from breaker_store.control import ChangedBreakerError, ContendedBreakerError, ExpiryError
from breaker_store.errors import (
    LogUnavailableError,
    NotForcedOpenError,
    NotSuspendedError,
    SchemaError,
    StoreError,
    SuspendedError,
    UnknownBreakerError,
)
from breaker_store.postgres.cursors import CursorError
from breaker_store.postgres.explaining import UnknownTransitionError
from breaker_store.postgres.health_history import HistoryRangeError
from breaker_store.postgres.horizon import FutureError, HorizonError
from breaker_store.postgres.staged_resets import NotStagedError, UnknownStagedResetError

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_TYPES: Final = "urn:problem-type:breaker-store:"
_NO_TYPE: Final = "about:blank"
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str = Field(
        _NO_TYPE, description="Which problem it is, for programs.", examples=[f"{_TYPES}bad-cursor"]
    )
    title: str = Field(description="The same in words; always the same for one type.")
    status: int = Field(description="The status of the answer.")
    detail: str = Field(description="What it was this time.")
    instance: str = Field(description="The path that was asked for.")


_MEMBERS: Final = frozenset(Problem.model_fields)


class HorizonProblem(Problem):
    """A problem with the horizon as an extension member."""

    horizon: datetime | None = Field(
        description="To which the log goes back: nothing is known from before; null if it is empty."
    )


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem.

    Attributes:
        detail: what to say of it; None says what the error says, which then names nothing internal.
        retry_after_seconds: when it may have passed by itself; None if it doesn't.
        model: the form of the answer; what it has beyond the usual members are attributes of the error.

    """

    name: str
    status: HTTPStatus
    title: str
    detail: str | None = None
    retry_after_seconds: int | None = None
    model: type[Problem] = Problem


PROBLEM_TYPES: Final[Mapping[type[Exception], ProblemType]] = {
    CursorError: ProblemType("bad-cursor", HTTPStatus.BAD_REQUEST, "Not a cursor"),
    UnknownBreakerError: ProblemType("unknown-breaker", HTTPStatus.NOT_FOUND, "Unknown circuit breaker"),
    UnknownTransitionError: ProblemType("unknown-transition", HTTPStatus.NOT_FOUND, "Unknown transition"),
    HorizonError: ProblemType(
        "before-horizon", HTTPStatus.GONE, "The log does not go back so far", model=HorizonProblem
    ),
    FutureError: ProblemType("future", HTTPStatus.UNPROCESSABLE_ENTITY, "The time is yet to come"),
    ContendedBreakerError: ProblemType(
        "contended-breaker", HTTPStatus.CONFLICT, "The circuit breaker kept changing", retry_after_seconds=1
    ),
    ChangedBreakerError: ProblemType(
        "changed-breaker", HTTPStatus.PRECONDITION_FAILED, "The circuit breaker has moved on"
    ),
    NotForcedOpenError: ProblemType(
        "not-forced-open", HTTPStatus.CONFLICT, "The circuit breaker is not forced open"
    ),
    SuspendedError: ProblemType("suspended", HTTPStatus.CONFLICT, "The bot is suspended"),
    NotSuspendedError: ProblemType("not-suspended", HTTPStatus.CONFLICT, "The bot is not suspended"),
    ExpiryError: ProblemType("bad-expiry", HTTPStatus.UNPROCESSABLE_ENTITY, "Not a time to force open until"),
    NotStagedError: ProblemType("not-staged", HTTPStatus.CONFLICT, "Nothing was staged"),
    UnknownStagedResetError: ProblemType(
        "unknown-staged-reset", HTTPStatus.NOT_FOUND, "Unknown staged reset"
    ),
    HistoryRangeError: ProblemType(
        "history-too-long", HTTPStatus.UNPROCESSABLE_ENTITY, "The history is too long for one answer"
    ),
    RequestValidationError: ProblemType(
        "invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "The request makes no sense"
    ),
    LogUnavailableError: ProblemType(
        "database-unavailable",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The database is away",
        detail="the database can't be reached or does not answer in time",
        retry_after_seconds=5,
    ),
    SchemaError: ProblemType(
        "schema-mismatch",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The database has another schema",
        detail="the database has not the schema that this version needs: the server's log says what to do",
        retry_after_seconds=60,
    ),
}


def describe_errors(*errors: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """Document the answers to errors, in the form of a route's `responses`."""
    types = [PROBLEM_TYPES[error] for error in errors]
    statuses = sorted({problem.status for problem in types})
    return {
        int(status): _response([problem for problem in types if problem.status is status])
        for status in statuses
    }


def describe_status(status: HTTPStatus, description: str) -> dict[int | str, dict[str, Any]]:
    """Document an answer that no error of ours leads to, in the form of a route's `responses`."""
    return {int(status): _document(description, Problem)}


def _response(types: Sequence[ProblemType]) -> dict[str, Any]:
    """Document the problems that share a status, all of one form."""
    description = "; ".join(problem.title for problem in types)
    return _document(description, types[0].model)


def _document(description: str, model: type[Problem]) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": _schema(model)}}}


@cache
def _schema(model: type[Problem]) -> dict[str, Any]:
    """Describe a form of problems, which dozens of answers share."""
    return model.model_json_schema()


def handle_errors(app: FastAPI) -> None:
    """Have all errors of an application answered with problem details."""
    for error_type in PROBLEM_TYPES:
        app.add_exception_handler(error_type, _answer_known)
    app.add_exception_handler(HTTPException, _answer_http)
    # The server logs it, with its traceback; the answer says nothing of it.
    app.add_exception_handler(Exception, _answer_unexpected)


async def _answer_known(request: Request, error: Exception) -> JSONResponse:
    answer = _describe_known(request, error)
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("answered with status %d: %s", answer.status_code, error)
    return answer


def _describe_known(request: Request, error: Exception) -> JSONResponse:
    problem = next(PROBLEM_TYPES[each] for each in type(error).__mro__ if each in PROBLEM_TYPES)
    wait = problem.retry_after_seconds
    return _answer(
        problem.model(
            type=f"{_TYPES}{problem.name}",
            title=problem.title,
            status=problem.status,
            detail=problem.detail or _detail(error),
            instance=request.url.path,
            **{name: getattr(error, name) for name in problem.model.model_fields if name not in _MEMBERS},
        ),
        {} if wait is None else {"Retry-After": str(wait)},
    )


def _detail(error: Exception) -> str:
    if not isinstance(error, RequestValidationError):
        return str(error)
    return "; ".join(_complaint(each["loc"], each["msg"]) for each in error.errors())


def _complaint(location: tuple[str | int, ...], message: str) -> str:
    """Name the parameter, or the field of the body, and say what is wrong with it; never what was sent."""
    inner = location[1:]
    # Of a body that is no JSON, the place is a number: of the character that is wrong.
    place = ".".join(map(str, inner)) if inner and isinstance(inner[0], str) else location[0]
    return f"{place}: {message.removeprefix('Value error, ')}"


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework found: no such path, or not with this method."""
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    detail = status.description if error.detail == status.phrase else error.detail
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return _answer(_plain(request, status, detail), headers)


def _allowed(request: Request) -> Iterator[str]:
    """Give the methods of a path, which may be those of several routes: the framework names one's alone."""
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method


def answer_status(request: Request, status: HTTPStatus, detail: str) -> JSONResponse:
    """Answer with a status that says what kind of problem it is, and with what it was this time."""
    return _answer(_plain(request, status, detail))


async def answer_error(request: Request, error: HTTPException | StoreError) -> JSONResponse:
    """Answer what was raised before the application's handlers are reached, as they would; nothing of it is logged."""
    if isinstance(error, HTTPException):
        return await _answer_http(request, error)
    return _describe_known(request, error)


async def _answer_unexpected(request: Request, _error: Exception) -> JSONResponse:
    detail = "what went wrong stands in the server's log"
    return answer_status(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _plain(request: Request, status: HTTPStatus, detail: str) -> Problem:
    return Problem(
        type=_NO_TYPE, title=status.phrase, status=status, detail=detail, instance=request.url.path
    )


def _answer(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(mode="json"), problem.status, headers, MEDIA_TYPE)
