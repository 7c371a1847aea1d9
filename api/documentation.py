"""What the API's documentation has beside what FastAPI finds by itself: a real example of every answer.

The examples were given by the API itself, to the requests of `tests/api/test_examples.py`, which records them, and fails
where the API answers otherwise by now or an answer has none. What nobody expected looks the same from every operation, and
is recorded of one.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

_EXAMPLES: Final = "examples.json"
_UNEXPECTED: Final = "500"


def name_operation(route: APIRoute) -> str:
    """Name an operation as its function: what clients that are generated call it."""
    return route.name


def show_examples(app: FastAPI) -> None:
    """Have an application's OpenAPI document show the recorded examples."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _add_examples(generate(), _read_examples())
        return generate()

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI names


def _read_examples() -> dict[str, dict[str, dict[str, Any]]]:
    """Read the examples by operation, status and name."""
    text = resources.files("breaker_store.api").joinpath(_EXAMPLES).read_text(encoding="utf-8")
    examples: dict[str, dict[str, dict[str, Any]]] = json.loads(text)
    return examples


def _add_examples(document: dict[str, Any], examples: dict[str, dict[str, dict[str, Any]]]) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    [unexpected] = [recorded[_UNEXPECTED] for recorded in examples.values() if _UNEXPECTED in recorded]
    for operation in operations:
        recorded = {_UNEXPECTED: unexpected} | examples.get(operation["operationId"], {})
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).values():
                answers = recorded.get(status, {})
                media["examples"] = {each: {"value": value} for each, value in answers.items()}
