"""How bots are and were: one of them, by its events, and all of them together, as they were judged last."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError

from breaker_store.api.dependencies import Engine, Reader
from breaker_store.api.problems import describe_errors
from breaker_store.api.schemas.bot_health import (
    BotHealthAnswer,
    FleetHealthAnswer,
    FleetHistoryAnswer,
    HealthHistoryAnswer,
    HealthHistoryQuery,
    RetriesAnswer,
    RetriesQuery,
    UnhealthyBotsAnswer,
    UnhealthyQuery,
)
from breaker_store.api.schemas.parameters import UserId
from breaker_store.errors import LogUnavailableError, SchemaError, UnknownBreakerError
from breaker_store.postgres import bot_health, bot_history, fleet_health, fleet_history
from breaker_store.postgres.asking import ask_at_one_moment
from breaker_store.postgres.cursors import CursorError, write_optional
from breaker_store.postgres.health_history import HistoryRangeError
from breaker_store.postgres.retry_statistics import retry_statistics

PREFIX = "/api/admin/system/bots"

router = APIRouter(
    prefix=PREFIX, tags=["bots' health"], responses=describe_errors(LogUnavailableError, SchemaError)
)

_BOT_ERRORS = describe_errors(UnknownBreakerError, RequestValidationError)


@router.get("/health")
async def show_fleet_health(connection: Reader) -> FleetHealthAnswer:
    """Show how all bots are together: how many are healthy, and what their calls came to in the window."""
    return FleetHealthAnswer(health=await fleet_health.fleet_health(connection))


@router.get("/unhealthy", responses=describe_errors(CursorError, RequestValidationError))
async def list_unhealthy_bots(
    connection: Reader, query: Annotated[UnhealthyQuery, Query()]
) -> UnhealthyBotsAnswer:
    """List the bots that are not healthy, worst first; suspended ones come last."""
    page = await fleet_health.unhealthy_bots(connection, limit=query.limit, after=query.after())
    as_of = await fleet_health.judged_at(connection)
    return UnhealthyBotsAnswer(as_of=as_of, bots=page.items, next_cursor=write_optional(page.next_cursor))


@router.get(
    "/health/history",
    response_model=FleetHistoryAnswer,
    responses=describe_errors(HistoryRangeError, RequestValidationError),
)
async def show_fleet_history(engine: Engine, query: Annotated[HealthHistoryQuery, Query()]) -> Response:
    """Show how all bots were together, minute by minute, hour by hour or day by day."""
    wanted = query.to_range()
    texts = await ask_at_one_moment(
        engine, lambda connection: fleet_history.fleet_history_texts(connection, wanted)
    )
    answer = FleetHistoryAnswer(bucket=query.bucket, history=[])
    return Response(answer.write_with(texts), media_type="application/json")


@router.get("/{user_id}/health", responses=_BOT_ERRORS)
async def show_bot_health(engine: Engine, user_id: UserId) -> BotHealthAnswer:
    """Show how a bot is, by its calls of the last minutes, its breaker, and whether it is suspended."""
    health = await ask_at_one_moment(engine, lambda connection: bot_health.bot_health(connection, user_id))
    return BotHealthAnswer(health=health)


@router.get("/{user_id}/retries", responses=_BOT_ERRORS)
async def show_retries(
    engine: Engine, user_id: UserId, query: Annotated[RetriesQuery, Query()]
) -> RetriesAnswer:
    """Show how often a bot's calls were tried again, and what came of it."""
    found = await ask_at_one_moment(
        engine,
        lambda connection: retry_statistics(connection, user_id, hours=query.hours, until=query.until),
    )
    return RetriesAnswer(retries=found)


@router.get(
    "/{user_id}/health/history",
    response_model=HealthHistoryAnswer,
    responses=describe_errors(UnknownBreakerError, HistoryRangeError, RequestValidationError),
)
async def show_bot_history(
    engine: Engine, user_id: UserId, query: Annotated[HealthHistoryQuery, Query()]
) -> Response:
    """Show how a bot was, minute by minute, hour by hour or day by day."""
    wanted = query.to_range()
    texts = await ask_at_one_moment(
        engine, lambda connection: bot_history.bot_history_texts(connection, user_id, wanted)
    )
    answer = HealthHistoryAnswer(user_id=user_id, bucket=query.bucket, history=[])
    return Response(answer.write_with(texts), media_type="application/json")
