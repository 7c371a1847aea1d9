"""The fleet's metrics for Prometheus; there only where the extra `prometheus` is installed."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from breaker_store.api.dependencies import Reader
from breaker_store.api.problems import describe_errors
from breaker_store.errors import LogUnavailableError, SchemaError
from breaker_store.integrations.prometheus import expose
from breaker_store.postgres.fleet_counts import count_fleet

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=describe_errors(LogUnavailableError, SchemaError),
)
async def tell_metrics(connection: Reader) -> PlainTextResponse:
    """Tell how many breakers there are by state, and how their recording goes, in the text format of Prometheus."""
    return PlainTextResponse(expose(await count_fleet(connection)), media_type=CONTENT_TYPE_LATEST)
