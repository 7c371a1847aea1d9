"""Which transition is to be explained, and the explanation, as they go over the wire."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, WithJsonSchema

from breaker_store.api.schemas.answers import Answer
from breaker_store.core.events import EVENT_ID_PATTERN, EventId
from breaker_store.postgres.explanation_items import ExplanationItem

LATEST: Final = "latest"


def _transition_name(text: str) -> str:
    if text != LATEST:
        EventId.read(text)
    return text


TransitionName = Annotated[
    str,
    AfterValidator(_transition_name),
    WithJsonSchema({"type": "string", "pattern": f"^({LATEST}|{EVENT_ID_PATTERN})$"}),
    Path(description="The id of its event, writer-seq, or the word latest."),
]


class ExplanationAnswer(Answer):
    explanation: ExplanationItem
