"""What the API's documentation has beside what FastAPI finds by itself: how to sign in, and a real example of every answer.

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
_UNAUTHORIZED: Final = "401"
_SCHEME: Final = "bearer"


def name_operation(route: APIRoute) -> str:
    """Name an operation as its function: what clients that are generated call it."""
    return route.name


def complete_document(app: FastAPI) -> None:
    """Have an application's OpenAPI document show how to sign in, and the recorded examples."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _add_sign_in(generate())
            _add_examples(generate(), _read_examples())
        return generate()

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI names


def _read_examples() -> dict[str, dict[str, dict[str, Any]]]:
    """Read the examples by operation, status and name."""
    text = resources.files("breaker_store.api").joinpath(_EXAMPLES).read_text(encoding="utf-8")
    examples: dict[str, dict[str, dict[str, Any]]] = json.loads(text)
    return examples


def _add_sign_in(document: dict[str, Any]) -> None:
    """Say which operations want a token; here, since a dependency that says so would cost each request more than the door."""
    document["components"]["securitySchemes"] = {_SCHEME: {"type": "http", "scheme": "bearer"}}
    for path in document["paths"].values():
        for operation in path.values():
            if _UNAUTHORIZED in operation["responses"]:
                operation["security"] = [{_SCHEME: []}]


def _add_examples(document: dict[str, Any], examples: dict[str, dict[str, dict[str, Any]]]) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    [unexpected] = [recorded[_UNEXPECTED] for recorded in examples.values() if _UNEXPECTED in recorded]
    for operation in operations:
        recorded = {_UNEXPECTED: unexpected} | examples.get(operation["operationId"], {})
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).values():
                answers = recorded.get(status, {})
                media["examples"] = {each: {"value": value} for each, value in answers.items()}
