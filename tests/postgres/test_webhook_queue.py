from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from breaker_store.core.alerting import AlertKind
from breaker_store.core.events import CircuitState, Kind
from breaker_store.core.policy import Policy
from breaker_store.errors import LogUnavailableError
from breaker_store.ports import Source
from breaker_store.postgres.webhook_queue import LeaseLostError, WebhookQueue
from tests.postgres.losing import lost_while_waiting

USER = 101

INSERT = """
INSERT INTO breaker_events
    (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, version, position, details, details_version)
VALUES (now(), $1, 1, $2, $3, 1, $4, $3, $2, $5, 1)
"""


class Log:
    """Writes transitions by hand, also of kinds that nothing makes yet."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.position = 0
        self.versions: dict[int, int] = {}

    async def write(
        self,
        kind: Kind,
        was: CircuitState,
        user_id: int = USER,
        error: str | None = None,
        number: int | None = None,
    ) -> None:
        self.position += 1
        self.versions[user_id] = self.versions.get(user_id, 0) + 1
        facts = ("id", "at", "error_type", "error_message", "operation", "duration_us")
        causes = [
            dict(zip(facts, ("1-1", "2026-11-26T09:00:00+00:00", error, None, None, None), strict=True))
        ]
        nothing = dict.fromkeys(
            ("follows", "reason", "actor", "last_failure", "opened_at", "opened_by", "retry_at")
        )
        details = nothing | {
            "from": was,
            "to": CircuitState.OPEN,
            "policy": Policy().to_document(),
            "policy_is_own": False,
            "failure_count": 0,
            "causes": causes if error else [],
        }
        place = (user_id, self.position, self.versions[user_id])
        await self.connection.execute(INSERT, *place, number or kind, json.dumps(details))
        await self.connection.execute("UPDATE log_position SET last = $1", self.position)


@pytest.fixture
def log(connection: asyncpg.Connection) -> Log:
    return Log(connection)


@pytest.fixture
async def queue(database_url: str) -> AsyncIterator[WebhookQueue]:
    queue = WebhookQueue(database_url, "team")
    await queue.claim()
    yield queue
    await queue.close()


CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


async def test_a_recovery_ends_the_trip_and_what_was_done_by_hand_on_top_of_it(log, queue):
    await log.write(Kind.OPENED, CLOSED, error="Earlier")
    await log.write(Kind.CLOSED, HALF_OPEN)
    await log.write(Kind.OPENED, CLOSED, error="Unauthorized")
    for _ in range(3):
        await log.write(Kind.HALF_OPENED, OPEN)
        await log.write(Kind.OPENED, HALF_OPEN, error="Other")
    await log.write(Kind.FORCED_OPEN, OPEN)
    await log.write(Kind.OPENED, CLOSED, user_id=2, error="Another's")
    await log.write(Kind.RELEASED, OPEN)

    *_, released = await queue.notices(log.position)

    assert released.kind is AlertKind.RECOVERED
    assert [(each.kind, each.position, each.error) for each in released.ended] == [
        (AlertKind.TRIPPED, 3, "Unauthorized"),
        (AlertKind.FORCED_OPEN, 10, None),
    ]


async def test_only_what_is_told_is_read_and_in_order(log, queue):
    await log.write(Kind.OPENED, CLOSED, error="E")
    await log.write(Kind.HALF_OPENED, OPEN)
    await log.write(Kind.OPENED, HALF_OPEN, error="E")
    await log.write(Kind.POLICY_CHANGED, OPEN)
    await log.write(Kind.RESET, OPEN)
    await log.write(Kind.RESET, CLOSED)
    await log.write(Kind.SUSPENDED, CLOSED)

    found = await queue.notices(log.position)

    assert [(each.kind, each.position) for each in found] == [
        (AlertKind.TRIPPED, 1),
        (AlertKind.RECOVERED, 5),
        (AlertKind.SUSPENDED, 7),
    ]


async def test_what_only_a_newer_version_can_read_is_passed_over(log, queue, owner):
    await log.write(Kind.OPENED, CLOSED, number=42)
    await log.write(Kind.OPENED, CLOSED, user_id=2)
    await owner.execute("ALTER TABLE breaker_transitions DISABLE TRIGGER USER")
    await owner.execute("UPDATE breaker_transitions SET details_version = 99 WHERE position = 2")

    assert await queue.notices(log.position) == []


async def test_what_was_imported_is_not_told(log, queue, connection):
    await log.write(Kind.OPENED, CLOSED)
    await connection.execute(
        "INSERT INTO writer_batches VALUES (1, 1, 1, 1, 1, 1, $1, sha256('it'), NULL, now(), now())",
        Source.IMPORT,
    )

    assert not await queue.has_news(log.position)
    assert await queue.notices(log.position) == []


async def test_very_many_are_read_page_by_page_up_to_the_end_that_was_asked_for(log, queue):
    for user_id in range(1, 121):
        await log.write(Kind.OPENED, CLOSED, user_id=user_id, error="E")

    assert [each.user_id for each in await queue.notices(110)] == list(range(1, 111))


async def test_each_step_is_refused_once_another_process_has_the_lease(log, queue, database_url, connection):
    await log.write(Kind.OPENED, CLOSED)
    await connection.execute("UPDATE webhooks SET leased_until = clock_timestamp()")
    other = WebhookQueue(database_url, "team")
    assert await other.claim()

    assert not await queue.claim()
    for step in (
        queue.renew(),
        queue.open_window(1),
        queue.record_delivered("m"),
        queue.record_refused("m"),
        queue.record_error("e"),
        queue.move_on(1),
    ):
        with pytest.raises(LeaseLostError):
            await step
    # Nor does the end of the one take the other's lease away.
    await queue.close()
    await other.renew()
    assert (other.place.position, other.place.window_to, other.place.window_mark) == (0, None, None)
    await other.close()


async def test_a_lease_is_known_to_last_no_longer_than_the_database_grants_it(queue, connection):
    granted = await connection.fetchval(
        "SELECT extract(epoch FROM leased_until - clock_timestamp())::float8 FROM webhooks"
    )

    assert 0 < queue.held_seconds <= granted + 0.01


async def test_a_lost_connection_is_told_as_such_and_made_again(queue, connection):
    async with lost_while_waiting(connection):
        renewing = asyncio.create_task(queue.renew())

    with pytest.raises(LogUnavailableError):
        await renewing
    await queue.renew()
