"""An export is verified without the database, as strictly as the database is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from breaker_store import BreakerStore
from breaker_store.erasure import erase
from breaker_store.integrations.opentelemetry import instrument
from breaker_store.postgres.exported_record import UnreadableExportError, verify_export
from breaker_store.postgres.exporting import ExportFilter, export_events
from breaker_store.postgres.verification import Verification, verify
from tests.postgres.living import fail, ok, trip

Lines = list[dict[str, Any]]


@pytest.fixture
async def exported(store: BreakerStore, database_url: str, maintenance_url: str) -> tuple[Lines, Lines]:
    """Export what happened to three users, one of whom was erased, and the proof of it."""
    for user_id in (1, 2, 3):
        breaker = store.registry.get_breaker(user_id)
        await breaker.call(ok)
        await fail(breaker, error='no "answer"\n\x1b é🙂')
        await trip(breaker)
        breaker.reset(actor="ann", reason="looked\tat it")
    await store.flush()
    await erase(maintenance_url, 3)
    return await export(database_url)


async def test_an_export_of_calls_that_were_traced_is_found_to_be_whole(
    store: BreakerStore, database_url: str, maintenance_url: str
) -> None:
    with instrument(store), TracerProvider().get_tracer("a bot").start_as_current_span("answer"):
        for user_id in (1, 2):
            await store.registry.get_breaker(user_id).call(ok)
            await trip(store.registry.get_breaker(user_id))
    await store.flush()
    await erase(maintenance_url, 2)
    events, proof = await export(database_url)
    assert check(events, proof).findings == ()
    opened = first(events, lambda line: line["kind"] == "opened")
    assert (
        opened["details"]["causes"][0]["trace_id"] == first(events, lambda line: line["trace_id"])["trace_id"]
    )
    opened["details"]["causes"][0]["trace_id"] = "00000000-0000-0000-0000-000000000001"
    assert check(events, proof).problems > 0


async def export(database_url: str) -> tuple[Lines, Lines]:
    events, proof = io.BytesIO(), io.BytesIO()
    await export_events(database_url, ExportFilter(), "ndjson", events.write, write_proof_to=proof.write)
    return [list(map(json.loads, file.getvalue().splitlines())) for file in (events, proof)]  # type: ignore[return-value]


def check(events: Lines, proof: Lines, *more: Any) -> Verification:
    files = (io.BytesIO("\n".join(map(json.dumps, lines)).encode()) for lines in (events, proof))
    return verify_export(*files, *more)


async def test_an_export_is_found_to_be_whole_with_the_head_of_its_database(
    exported: tuple[Lines, Lines], database_url: str
) -> None:
    found = await verify(database_url)
    assert found.findings == ()
    offline = check(*exported, found.head)
    assert offline.findings == ()
    assert (offline.batches, offline.transitions) == (found.batches, found.transitions)
    assert (await verify(database_url, offline.head)).findings == ()


def first(lines: Lines, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(line for line in lines if fits(line))


GAP = (
    "reason", "first_at_us", "last_at_us", "successes", "refusals", "failures", "transitions", "unknown", "xid",
    "recorded_at_us",
)  # fmt: skip

TAMPERED: dict[str, Callable[[Lines, Lines], Any]] = {
    "a duration": lambda events, _: first(events, lambda line: line["kind"] == "failure").update(
        duration_us=86_400_000_000
    ),
    "a text": lambda events, _: first(events, lambda line: line["error_message"]).update(
        error_message="well"
    ),
    "a user": lambda events, _: first(events, lambda line: line["kind"] == "success").update(user_id=9),
    "an event taken out": lambda events, _: events.pop(0),
    "an event put in": lambda events, _: events.append({**events[0], "id": "77-1"}),
    "an actor": lambda events, _: first(events, lambda line: line["kind"] == "reset")["details"].update(
        actor="bob"
    ),
    "a reason": lambda events, _: first(events, lambda line: line["kind"] == "reset")["details"].update(
        reason=None
    ),
    "a transition taken out": lambda events, _: events.remove(
        first(events, lambda line: line["kind"] == "reset")
    ),
    "a link": lambda _, proof: first(proof, lambda line: line["proof"] == "link").update(chain="00" * 32),
    "a link taken out": lambda _, proof: proof.remove(first(proof, lambda line: line["proof"] == "link")),
    "a batch taken out": lambda _, proof: proof.remove(first(proof, lambda line: line["proof"] == "batch")),
    "a batch's digest": lambda _, proof: first(proof, lambda line: line["proof"] == "batch").update(
        digest="00" * 32
    ),
    "a gap put in": lambda _, proof: proof.append(
        dict.fromkeys(GAP, 0) | {"proof": "gap", "writer_id": 7, "batch_no": 1, "gap_no": 1}
    ),
    "the earliest outcomes taken out": lambda events, _: [
        events.remove(event) for event in list(events) if event["kind"] in {"success", "failure"}
    ],
    "an erasure's digest": lambda _, proof: first(proof, lambda line: line["proof"] == "reseal").update(
        digest_after="00" * 32
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_tampered_with_is_found(exported: tuple[Lines, Lines], what: str) -> None:
    TAMPERED[what](*exported)
    assert check(*exported).problems > 0


async def test_an_export_that_was_made_anew_is_found_with_a_head(
    exported: tuple[Lines, Lines], database_url: str, store: BreakerStore, connection: asyncpg.Connection
) -> None:
    head = (await verify(database_url)).head
    await trip(store.registry.get_breaker(1))
    await store.flush()
    events, proof = await export(database_url)
    assert check(events, proof, head).findings == ()
    assert check(*exported, (await verify(database_url)).head).problems == 1
    assert await connection.fetchval("SELECT last FROM log_position") == head.position + 1


async def test_its_head_leaves_out_a_batch_that_was_under_way(
    owner: asyncpg.Connection, database_url: str, store: BreakerStore
) -> None:
    async with owner.transaction():
        await owner.execute(
            "SELECT open_batch(5, 1, 1, 1, 1, 1::smallint, 0::smallint, sha256('5'), NULL, now(), now())"
        )
        await store.registry.get_breaker(1).call(ok)
        await store.flush()
        head = check(*await export(database_url)).head
    assert (await verify(database_url, head)).findings == ()


@pytest.mark.parametrize(
    "text", [b"no JSON", b"[]", b'{"id": "1-1"}', b'{"id": 7, "kind": "success", "user_id": 1}']
)
def test_what_is_no_export_is_refused(text: bytes) -> None:
    with pytest.raises(UnreadableExportError, match="line"):
        verify_export(io.BytesIO(text), io.BytesIO(b""))


@pytest.mark.parametrize("lines", [[], [{"proof": "moment"}], [{"proof": "moment", "dropped_days": ["x"]}]])
def test_what_is_no_proof_is_refused(lines: Lines) -> None:
    with pytest.raises(UnreadableExportError, match="the proof"):
        check([], lines)


def test_a_batch_that_lacks_something_is_no_proof(exported: tuple[Lines, Lines]) -> None:
    events, proof = exported
    first(proof, lambda line: line["proof"] == "batch").pop("seal")
    with pytest.raises(UnreadableExportError, match="a line of the proof"):
        check(events, proof)
