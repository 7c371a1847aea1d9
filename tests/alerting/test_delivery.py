"""Delivery from a real log to a real receiver, with a pause that is over at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest
from standardwebhooks import Webhook as Verifier

from breaker_store.alerting import delivery as deliveries
from breaker_store.alerting.configuration import Format, Webhook
from breaker_store.alerting.delivery import Delivery, delivering
from breaker_store.alerting.sending import open_sender
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.webhook_queue import LeaseLostError, WebhookQueue
from breaker_store.postgres.webhooks import forget_webhook
from breaker_store.runtime.clock import ManualClock
from tests.contract.writing import START, Writer, send_together
from tests.postgres.losing import lost_while_waiting

from .making import SECRET, webhook
from .receiver import CUT, Receiver, receiving


class Pauses:
    """Passes the time at once, and keeps how much it was; things may happen meanwhile."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        await asyncio.sleep(0)


Start = Callable[..., Awaitable[Delivery]]


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def start(database_url: str, receiver: Receiver, pauses: Pauses) -> AsyncIterator[Start]:
    """Start a process that delivers; from the present end of the log on, if none did before."""
    async with AsyncExitStack() as stack:

        async def start(chosen: Webhook | None = None, window: int = deliveries.WINDOW) -> Delivery:
            chosen = chosen or webhook(url=receiver.url)
            queue = WebhookQueue(database_url, chosen.name)
            stack.push_async_callback(queue.close)
            sender = await stack.enter_async_context(open_sender(chosen))
            delivery = Delivery(chosen, queue, sender, pause=pauses, window=window)
            await delivery.deliver_next()
            return delivery

        yield start


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Writer]:
    clock = ManualClock(START)
    log = PostgresEventLog(database_url, clock)
    await log.open()
    yield Writer(log, clock)
    await log.close()


async def send(writer: Writer) -> None:
    while writer.journal.pending:
        await writer.send_and_settle()


async def trip(writer: Writer, *users: int) -> None:
    for user_id in users:
        await writer.trip(user_id)
    await send(writer)


async def recover(writer: Writer, *users: int) -> None:
    writer.registry.surroundings.clock.advance(11)
    for user_id in users:
        await writer.succeed(user_id, times=2)
    await send(writer)


async def deliver_all(delivery: Delivery) -> None:
    while await delivery.deliver_next():
        pass


def told(receiver: Receiver) -> list[tuple[str, list[int]]]:
    return [(each.json["type"].removeprefix("breaker."), each.json["user_ids"]) for each in receiver.taken]


async def row(connection: asyncpg.Connection) -> asyncpg.Record:
    return await connection.fetchrow("SELECT * FROM webhooks")


async def test_a_new_webhook_is_told_of_nothing_that_happened_before(start, writer, receiver):
    await trip(writer, 1)

    await deliver_all(await start())

    assert receiver.received == []


async def test_a_trip_and_its_recovery_are_told_signed_and_in_order(start, writer, receiver, connection):
    delivery = await start()
    await trip(writer, 1)
    await deliver_all(delivery)
    await recover(writer, 1)
    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [1]), ("recovered", [1])]
    for each in receiver.taken:
        Verifier(SECRET).verify(each.body, each.headers)
    tripped, recovered = (each.json for each in receiver.taken)
    assert tripped["error"] == recovered["error"] == "tests.contract.writing.NoAnswerError"
    assert recovered["transitions"][0]["tripped_by"] == tripped["transitions"][0]["id"]
    stored = await row(connection)
    assert (stored["delivered"], stored["window_to"]) == (2, None)
    assert stored["position"] == await connection.fetchval("SELECT last FROM log_position")


async def test_a_recovery_has_the_error_of_its_trip_also_after_many_reopenings(start, writer, receiver):
    delivery = await start(webhook(Format.ALERTMANAGER, url=receiver.url))
    await trip(writer, 1)
    await deliver_all(delivery)
    for _ in range(3):
        writer.registry.surroundings.clock.advance(11)
        await writer.fail(1)
        await send(writer)
    await recover(writer, 1)
    await deliver_all(delivery)

    [firing], [resolved] = (each.json for each in receiver.taken)
    assert firing["labels"] == resolved["labels"]
    assert firing["startsAt"] == resolved["startsAt"]
    assert firing["endsAt"] > resolved["endsAt"] > resolved["startsAt"]


async def test_each_recovery_ends_the_trip_before_it(start, writer, receiver):
    delivery = await start()
    for _ in range(2):
        await trip(writer, 1)
        await recover(writer, 1)
    await deliver_all(delivery)

    bodies = [each.json for each in receiver.taken]
    assert told(receiver) == [("tripped", [1]), ("recovered", [1])] * 2
    assert [body["transitions"][0]["tripped_by"] for body in bodies[1::2]] == [
        body["transitions"][0]["id"] for body in bodies[::2]
    ]


async def test_what_nobody_need_hear_of_is_passed_over(start, writer, receiver, connection):
    await trip(writer, 1)
    delivery = await start()
    writer.registry.surroundings.clock.advance(11)
    await writer.fail(1)
    await send(writer)

    await deliver_all(delivery)

    assert receiver.received == []
    assert (await row(connection))["position"] == await connection.fetchval("SELECT last FROM log_position")


async def test_a_trip_that_lost_to_another_process_is_not_told(start, writer, receiver, database_url):
    delivery = await start()
    log = PostgresEventLog(database_url, ManualClock(START))
    other = Writer(log, ManualClock(START))
    await writer.trip(1)
    await other.trip(1)
    await send_together(writer, other)
    await log.close()

    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [1])]


async def test_two_thousand_users_who_trip_with_one_error_are_one_message(start, writer, receiver):
    delivery = await start()
    await trip(writer, *range(1, 2_001))

    await deliver_all(delivery)

    [received] = receiver.taken
    assert received.json["user_count"] == 2_000


async def test_what_comes_within_the_grouping_time_is_told_together(start, writer, receiver, pauses):
    delivery = await start(webhook(url=receiver.url, group_seconds=5.0))
    await trip(writer, 1)
    pauses.meanwhile = lambda: trip(writer, 2)

    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [1, 2])]
    assert sum(pauses.seconds) == 5.0


async def test_a_message_is_sent_again_under_its_id_until_it_is_taken(start, writer, receiver, pauses):
    delivery = await start()
    receiver.answers.extend([500, CUT, 503, 404, 401, 408])
    await trip(writer, 1)

    await deliver_all(delivery)

    assert len(receiver.received) == 7
    assert len({(each.id, each.body) for each in receiver.received}) == 1
    assert told(receiver) == [("tripped", [1])]


async def test_pauses_between_attempts_grow_to_five_minutes_and_no_further(start, writer, receiver, pauses):
    delivery = await start()
    receiver.answers.extend([500] * 30)
    await trip(writer, 1)

    await deliver_all(delivery)

    # Each is drawn by chance from one second up to twice as much as the one before. Thirty of one second would be 30;
    # thirty that never stopped growing would be years.
    assert (
        10 * deliveries.LONGEST_BACKOFF_SECONDS / 2
        < sum(pauses.seconds)
        < 30 * deliveries.LONGEST_BACKOFF_SECONDS
    )
    # They are waited for in parts, so that the lease is renewed meanwhile.
    assert max(pauses.seconds) <= deliveries.RENEW_SECONDS


async def test_a_receiver_is_not_asked_before_the_time_that_it_names(start, writer, receiver, pauses):
    delivery = await start()
    receiver.answers.append(429)
    receiver.headers = {"retry-after": "1000"}
    await trip(writer, 1)

    await deliver_all(delivery)

    assert sum(pauses.seconds) == pytest.approx(1_000)
    assert told(receiver) == [("tripped", [1])]


async def test_a_message_that_is_refused_for_itself_is_set_aside_and_the_next_ones_go_on(
    start, writer, receiver, connection, caplog
):
    delivery = await start()
    receiver.answers.extend([400] * deliveries.REFUSALS)
    await trip(writer, 1)
    await recover(writer, 1)

    await deliver_all(delivery)

    assert told(receiver) == [("recovered", [1])]
    assert len(receiver.received) == deliveries.REFUSALS + 1
    stored = await row(connection)
    assert (stored["delivered"], stored["refused"], stored["last_error"]) == (1, 1, "400 Bad Request")
    assert f"refuses message {receiver.received[0].id}, which is set aside" in caplog.text


async def test_what_is_wrong_with_the_receiver_stands_in_the_database_meanwhile(
    start, writer, receiver, connection, pauses
):
    delivery = await start()
    receiver.answers.append(404)
    await trip(writer, 1)
    seen = []

    async def look() -> None:
        seen.append(await row(connection))

    pauses.meanwhile = look
    await deliver_all(delivery)

    assert (seen[0]["last_error"], seen[0]["delivered"]) == ("404 Not Found", 0)
    assert seen[0]["last_error_at"] is not None


class CrashError(Exception):
    pass


async def crash() -> None:
    raise CrashError


async def expire(connection: asyncpg.Connection) -> None:
    """Let the lease of a process that died lapse."""
    await connection.execute("UPDATE webhooks SET leased_until = clock_timestamp()")


async def test_after_a_crash_another_process_sends_the_same_messages_under_the_same_ids(
    start, writer, receiver, connection, pauses
):
    """Also where more has happened meanwhile, and what was delivered before the crash is not sent again."""
    delivery = await start()
    await trip(writer, 1)
    await recover(writer, 1)
    receiver.answers.extend([200, 500])
    pauses.meanwhile = crash
    with pytest.raises(CrashError):
        await deliver_all(delivery)
    await trip(writer, 1, 2)
    await expire(connection)

    await deliver_all(await start())

    assert told(receiver) == [("tripped", [1]), ("recovered", [1]), ("tripped", [1, 2])]
    ids = [each.id for each in receiver.received]
    assert ids[1] == ids[2]
    assert len(set(ids)) == 3


async def test_a_crash_between_sending_and_recording_sends_it_twice_under_one_id(
    start, writer, receiver, connection
):
    delivery = await start()
    await trip(writer, 1)
    assert await delivery.deliver_next()
    window_to = (await row(connection))["window_to"]
    await delivery.deliver_next()
    await connection.execute(
        "UPDATE webhooks SET position = 0, writer_id = NULL, writer_seq = NULL, window_to = $1, window_mark = NULL",
        window_to,
    )
    await expire(connection)

    await deliver_all(await start())

    first, second = receiver.taken
    assert (first.id, first.body) == (second.id, second.body)


async def test_where_the_file_has_changed_amid_a_window_its_messages_are_rather_sent_twice(
    start, writer, receiver, connection
):
    delivery = await start()
    await trip(writer, 1)
    await recover(writer, 1)
    await delivery.deliver_next()
    await connection.execute("UPDATE webhooks SET window_mark = 'msg_of_another_grouping'")

    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [1]), ("recovered", [1])]


async def test_of_two_processes_one_delivers(start, writer, receiver):
    first, second = await start(), await start()
    await trip(writer, 1)

    assert not await second.deliver_next()
    await deliver_all(first)

    assert told(receiver) == [("tripped", [1])]


async def test_a_lease_that_has_lapsed_is_taken_over(start, writer, receiver, connection):
    first = await start()
    await expire(connection)
    second = await start()
    await trip(writer, 1)

    with pytest.raises(LeaseLostError):
        await deliver_all(first)
    assert receiver.received == []
    await deliver_all(second)

    assert told(receiver) == [("tripped", [1])]


async def test_who_has_lost_the_lease_while_waiting_sends_no_more(
    start, writer, receiver, connection, pauses
):
    """What it sent then would come after what the other has sent."""
    first = await start()
    receiver.answers.append(500)
    await trip(writer, 1)

    async def take_over() -> None:
        await expire(connection)
        await deliver_all(await start())

    pauses.meanwhile = take_over
    with pytest.raises(LeaseLostError):
        await deliver_all(first)

    assert len(receiver.received) == 2
    assert told(receiver) == [("tripped", [1])]


async def test_a_lease_is_given_back_at_the_end(database_url, connection):
    queue = WebhookQueue(database_url, "team")
    assert await queue.claim()
    await queue.close()

    other = WebhookQueue(database_url, "team")
    assert await other.claim()
    await other.close()


async def test_in_another_history_a_webhook_goes_on_at_its_end_and_says_so(
    start, writer, receiver, connection, caplog
):
    delivery = await start()
    await trip(writer, 1)
    await deliver_all(delivery)
    await connection.execute("UPDATE webhooks SET writer_seq = writer_seq + 1000")
    await trip(writer, 2)
    await expire(connection)

    delivery = await start()
    await deliver_all(delivery)
    await trip(writer, 3)
    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [1]), ("tripped", [3])]
    assert "the log is not the one that was told of" in caplog.text
    assert "the log is not the one" in (await row(connection))["last_error"]


async def test_a_log_that_ends_before_what_was_told_is_another_history_too(
    start, writer, receiver, connection
):
    delivery = await start()
    await connection.execute("UPDATE webhooks SET position = 1000, writer_id = 1, writer_seq = 1")
    await expire(connection)

    delivery = await start()
    await trip(writer, 1)
    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [1])]


async def test_a_webhook_that_was_forgotten_begins_at_the_logs_end(start, writer, receiver, database_url):
    delivery = await start()
    await trip(writer, 1)

    assert await forget_webhook(database_url, "team")
    assert not await forget_webhook(database_url, "other")
    with pytest.raises(LeaseLostError):
        await deliver_all(delivery)
    delivery = await start()
    await trip(writer, 2)
    await deliver_all(delivery)

    assert told(receiver) == [("tripped", [2])]


async def test_a_long_history_is_told_window_by_window_and_whole(start, writer, receiver):
    delivery = await start(window=10)
    await trip(writer, *range(1, 25))
    await recover(writer, *range(1, 25))

    await deliver_all(delivery)

    users = [(kind, user_id) for kind, found in told(receiver) for user_id in found]
    assert sorted(users) == sorted((kind, n) for kind in ("tripped", "recovered") for n in range(1, 25))
    for user_id in range(1, 25):
        assert users.index(("tripped", user_id)) < users.index(("recovered", user_id))


async def test_a_webhook_that_is_down_does_not_keep_another_from_being_told(database_url, writer, connection):
    async with receiving() as down, receiving() as up:
        down.always = 503
        chosen = [
            Webhook("down", down.url, SECRET, group_seconds=0),
            Webhook("up", up.url, SECRET, group_seconds=0),
        ]
        async with delivering(chosen, database_url):
            while await connection.fetchval("SELECT count(*) FROM webhooks") < 2:  # noqa: ASYNC110 - another task's row
                await asyncio.sleep(0.01)
            await trip(writer, 1)
            await down.wait_for_requests(1)
            await up.wait_for(1)
            await trip(writer, 2)
            await up.wait_for(2)

        assert down.taken == []
        assert [each["user_ids"] for each in (received.json for received in up.taken)] == [[1], [2]]


async def test_while_the_database_is_away_delivery_goes_on_trying(
    start, writer, receiver, connection, caplog
):
    delivery = await start()
    await trip(writer, 1)
    async with lost_while_waiting(connection):
        running = asyncio.create_task(delivery.run())
    await receiver.wait_for(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert told(receiver) == [("tripped", [1])]
    assert "webhook team can't be delivered for now" in caplog.text
