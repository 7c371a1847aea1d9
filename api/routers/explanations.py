"""Why a breaker opened, or what else a transition of it was: one sentence, and the evidence under it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError

from breaker_store.api.dependencies import Reader
from breaker_store.api.problems import describe_errors
from breaker_store.api.routers.circuit_breakers import PREFIX
from breaker_store.api.schemas.explanations import LATEST, ExplanationAnswer, TransitionName
from breaker_store.api.schemas.parameters import UserId
from breaker_store.core.events import EventId
from breaker_store.errors import LogUnavailableError, SchemaError, UnknownBreakerError
from breaker_store.postgres import explaining
from breaker_store.postgres.explaining import UnknownTransitionError

router = APIRouter(
    prefix=PREFIX, tags=["circuit breakers"], responses=describe_errors(LogUnavailableError, SchemaError)
)

_ERRORS = describe_errors(UnknownBreakerError, UnknownTransitionError, RequestValidationError)


@router.get("/{user_id}/transitions/{transition_id}/explanation", responses=_ERRORS)
async def explain_transition(
    connection: Reader, user_id: UserId, transition_id: TransitionName
) -> ExplanationAnswer:
    """Explain a transition: the trip with the failures that made it, what followed, and whose trouble it looks like.

    `latest` is the opening by which the breaker is blocked now, or else the last one. Of a user whose breaker has never
    been open the sentence says so.
    """
    event_id = None if transition_id == LATEST else EventId.read(transition_id)
    return ExplanationAnswer(explanation=await explaining.why(connection, user_id, event_id))
