"""Whether the service lives, and whether it can serve: for whoever starts and watches it."""

from __future__ import annotations

from fastapi import APIRouter

from breaker_store.api.dependencies import ReadyDatabase
from breaker_store.api.problems import describe_errors
from breaker_store.api.schemas.answers import Health
from breaker_store.errors import LogUnavailableError, SchemaError

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def tell_alive() -> Health:
    """Tell that the process answers; the database is not asked."""
    return Health()


@router.get("/readyz", responses=describe_errors(LogUnavailableError, SchemaError))
async def tell_ready(_database: ReadyDatabase) -> Health:
    """Tell whether the database can be reached and has the schema that this version needs."""
    return Health()
