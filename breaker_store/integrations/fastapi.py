"""FastAPI: the breaker of a path's user, and an answer for who is refused.

    app = FastAPI(lifespan=lifespan(database_url="postgresql://..."))    # breaker_store.integrations.asgi
    install(app)

    @app.post("/bots/{user_id}/messages")
    async def send(breaker: UserBreaker, text: str) -> None:
        await breaker.call(bot.send_message, text)

A breaker is made for each user that is asked for, so an application that is open to anybody checks who asks first.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from breaker_store.core.events import BIGINTS
from breaker_store.errors import BotSuspendedError, CircuitBreakerOpenError, RateLimitedError
from breaker_store.integrations.asgi import store_of
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.store import BreakerStore

MEDIA_TYPE: Final = "application/problem+json"

_TYPES: Final = "urn:problem-type:breaker-store:"


async def get_store(connection: HTTPConnection) -> BreakerStore:
    """Give the store that the application's lifespan has opened.

    Raises:
        ConfigurationError: it has opened none.

    """
    return store_of(connection.scope)


Store = Annotated[BreakerStore, Depends(get_store)]
"""The store that is open for the application."""


async def get_user_breaker(
    store: Store, user_id: Annotated[int, Path(ge=BIGINTS.start, lt=BIGINTS.stop)]
) -> CircuitBreaker:
    """Give the breaker of the user whose id the path has as `user_id`."""
    return store.registry.get_breaker(user_id)


UserBreaker = Annotated[CircuitBreaker, Depends(get_user_breaker)]
"""The breaker of the user whose id the path has as `user_id`."""


def install(app: FastAPI) -> None:
    """Have refused calls answered with 503, a `Retry-After` if there is an end to wait for, and problem details.

    That is so for `CircuitBreakerOpenError` and `RateLimitedError` alike: not who asks is too fast, so it is no 429.
    """
    for refusal in (CircuitBreakerOpenError, RateLimitedError):
        app.add_exception_handler(refusal, answer_refusal)


async def answer_refusal(request: Request, error: Exception) -> JSONResponse:
    """Answer a refused call; what it says is fit for end users, and names neither errors nor people."""
    if not isinstance(error, CircuitBreakerOpenError | RateLimitedError) or not isinstance(request, Request):
        raise error
    wait = _whole_seconds(error)
    kind, title, detail = _describe(error, wait)
    problem = {
        "type": f"{_TYPES}{kind}",
        "title": title,
        "status": HTTPStatus.SERVICE_UNAVAILABLE.value,
        "detail": detail,
        "instance": request.url.path,
    }
    headers = None if wait is None else {"Retry-After": str(wait)}
    return JSONResponse(problem, HTTPStatus.SERVICE_UNAVAILABLE, headers, MEDIA_TYPE)


def _whole_seconds(error: CircuitBreakerOpenError | RateLimitedError) -> int | None:
    seconds = error.retry_after if isinstance(error, RateLimitedError) else error.timeout_remaining
    return None if seconds is None else max(1, math.ceil(seconds))


def _describe(error: CircuitBreakerOpenError | RateLimitedError, wait: int | None) -> tuple[str, str, str]:
    """Give the name of the problem, its title, and what it is this time."""
    if isinstance(error, RateLimitedError):
        return "rate-limited", "The bot is rate limited", f"calls wait for another {wait} s"
    if isinstance(error, BotSuspendedError):
        return "bot-suspended", "The bot is suspended", "calls are refused until the bot is resumed"
    until = "until it is released" if wait is None else f"for another {wait} s"
    return "circuit-open", "The circuit breaker is open", f"calls are refused {until}"
