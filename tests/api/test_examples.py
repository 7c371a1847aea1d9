"""Every answer that the API's documentation names has an example, and the API gives just such answers.

BREAKER_STORE_RECORD_EXAMPLES=1 in the environment writes `api/examples.json` anew, from the answers to these requests.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from breaker_store.api.app import create_app
from breaker_store.api.authentication import Principal, Role
from tests.api.conftest import FromAnywhere
from tests.api.example_requests import END, NOBODY_LISTENS, requests, seed, stream_events

EXAMPLES = Path(__file__).parents[2] / "api" / "examples.json"
RECORDING = os.environ.get("BREAKER_STORE_RECORD_EXAMPLES") == "1"

Examples = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture
async def clients(
    serve, database_url: str, empty_database_url: str
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Serve a database with a history, one that has no tables, and one that is away; and the first to others too."""
    served = {
        "seeded": (database_url, None),
        "bare": (empty_database_url, None),
        "away": (NOBODY_LISTENS, None),
        "to a viewer": (database_url, know_a_viewer),
        "to nobody who is known": (database_url, know_nobody),
    }
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                serve(url, raise_app_exceptions=False, authenticate=authenticate, transport=FromAnywhere)
            )
            for name, (url, authenticate) in served.items()
        }


async def know_a_viewer(_request) -> Principal:
    return Principal("grafana", Role.VIEWER)


async def know_nobody(_request) -> None:
    return None


@pytest.fixture
async def answers(clients, database_url: str, owner) -> Examples:
    """Ask everything, in order."""
    await seed(database_url)
    given: Examples = {"stream_transitions": {"200": {"answer": await stream_events(database_url)}}}
    for request in requests():
        async with request.circumstances(owner):
            response = await request.send(clients[request.database])
        assert response.status_code == request.status, response.text
        operation = given.setdefault(request.operation, {}).setdefault(str(request.status), {})
        is_text = response.headers["content-type"].startswith("text/plain")
        operation[request.name] = response.text if is_text else response.json()
    return given


def shape(value: Any) -> Any:
    """Give what stays the same from run to run: keys and types. What is null may be something the next time."""
    match value:
        case dict():
            return {key: shape(each) for key, each in value.items() if each is not None}
        case list():
            return [shape(each) for each in value]
        case str() if END in value:
            return list(map(shape_line, value.splitlines()))
        case bool():
            return "bool"
        case int() | float():
            # JSON has one kind of number: a whole one may be written with a point or without.
            return "number"
        case _:
            return type(value).__name__


def shape_line(line: str) -> Any:
    """Give the same of a line of the stream: its field, the name of an event, the form of its data."""
    field, _, text = line.partition(": ")
    return (field, shape(json.loads(text)) if field == "data" else text if field == "event" else None)


async def test_the_api_answers_as_its_examples_say(answers: Examples) -> None:
    if RECORDING:
        EXAMPLES.write_text(json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    assert shape(json.loads(EXAMPLES.read_text())) == shape(answers)


def documented(operation: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (operation["operationId"], status)
        for status, response in operation["responses"].items()
        if any(not (media.get("examples") or media.get("example")) for media in response["content"].values())
    }


def test_every_documented_answer_has_an_example() -> None:
    document = create_app(NOBODY_LISTENS).openapi()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert set().union(*map(documented, operations)) == set()


def test_every_request_of_the_examples_is_documented_with_its_answer() -> None:
    document = create_app(NOBODY_LISTENS).openapi()
    known = {
        (operation["operationId"], status)
        for path in document["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
    }
    asked: set[tuple[str, str]] = {(request.operation, str(request.status)) for request in requests()}
    assert asked <= known


def test_a_request_has_one_name_for_each_answer() -> None:
    names = [(each.operation, each.status, each.name) for each in requests()]
    assert len(names) == len(set(names))
