"""What is true of each client of HTTP that a breaker protects; real ones, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from breaker_store import BreakerStoreError, CircuitBreakerOpenError, CircuitState, Policy
from breaker_store.bots import BotFleet, UserBotCredentials
from breaker_store.core.events import Kind, Outcome, StoredEvent, Verdict
from breaker_store.failures import HTTP, Category
from breaker_store.integrations.http_calls import name_operation
from tests.integrations.http_clients import CLIENTS, Client, MakeClient, Twice
from tests.integrations.http_service import (
    SEND,
    TOKEN,
    Behaviour,
    Service,
    cut,
    drop,
    fail_without_end,
    keep_silent,
    status,
    stream,
)
from tests.runtime.driving import Recording, trip


@pytest.fixture(params=CLIENTS, ids=lambda each: each.__name__)
def make_client(request: pytest.FixtureRequest) -> MakeClient:
    chosen: MakeClient = request.param
    return chosen


def outcome(recording: Recording) -> Outcome:
    """Take the one event that there is."""
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    return event


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def read_all(client: Client, address: str) -> list[bytes]:
    async with client.stream(address) as chunks:
        return [chunk async for chunk in chunks]


async def test_an_answer_that_was_read_is_a_success_with_its_operation(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    async with make_client(recording.breaker) as client:
        assert await client.post(service.address + SEND) == (200, b"200")
    event = outcome(recording)
    assert (event.kind, event.operation, event.error_type) == (Kind.SUCCESS, "sendMessage", None)


async def test_a_call_lasts_until_its_body_has_been_read(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with make_client(recording.breaker) as client, client.stream(service.address + SEND) as chunks:
        assert await anext(chunks) == b"first"
        recording.clock.advance(2)
        assert recording.events() == []
        service.go_on.set()
        assert [chunk async for chunk in chunks] == [b"last"]
        event = outcome(recording)
    assert (event.kind, event.operation, event.duration_us) == (Kind.SUCCESS, "sendMessage", 2_000_000)
    assert recording.events() == []


async def test_a_servers_own_trouble_is_a_failure_and_its_answer_reaches_the_caller(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(status(503))
    async with make_client(recording.breaker) as client:
        assert await client.post(service.address + SEND) == (503, b"503")
    event = outcome(recording)
    assert (event.kind, event.error_type) == (Kind.FAILURE, "http.ServiceUnavailable")


async def test_what_is_declined_is_a_success_that_carries_the_error(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(status(403))
    async with make_client(recording.breaker) as client:
        assert await client.post(service.address + SEND) == (403, b"403")
    event = outcome(recording)
    assert (event.kind, event.verdict) == (Kind.SUCCESS, Verdict.COUNTED)
    assert (event.error_type, event.error_message) == ("http.Forbidden", "403 Forbidden")


async def test_calls_that_come_too_fast_are_not_counted(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(status(429, "Retry-After: 7"))
    async with make_client(recording.breaker) as client:
        assert await client.post(service.address + SEND) == (429, b"429")
    event = outcome(recording)
    assert (event.verdict, event.error_type) == (Verdict.NOT_COUNTED, "http.TooManyRequests")


async def test_a_revoked_token_opens_the_breaker_at_once_and_nothing_more_is_sent(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(status(401))
    async with make_client(recording.breaker) as client:
        assert await client.post(service.address + SEND) == (401, b"401")
        with pytest.raises(CircuitBreakerOpenError) as refused:
            await client.post(service.address + SEND)
    assert type(refused.value) is CircuitBreakerOpenError
    assert refused.value.user_id == recording.breaker.user_id
    assert len(service.asked) == 1


async def test_a_status_means_what_the_users_table_says(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(status(401))
    async with make_client(recording.breaker, failures=HTTP | {401: Category.DECLINED}) as client:
        await client.post(service.address + SEND)
    assert outcome(recording).kind is Kind.SUCCESS


async def test_a_dropped_connection_is_a_failure(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(drop)
    async with make_client(recording.breaker) as client:
        with pytest.raises(client.errors):
            await client.post(service.address + SEND)
    assert outcome(recording).kind is Kind.FAILURE


async def test_a_service_that_nobody_reaches_is_a_failure(
    make_client: MakeClient, recording: Recording, unused_tcp_port: int
) -> None:
    async with make_client(recording.breaker) as client:
        with pytest.raises(client.errors):
            await client.post(f"http://127.0.0.1:{unused_tcp_port}{SEND}")
    assert outcome(recording).kind is Kind.FAILURE


@pytest.mark.parametrize("behaviour", [keep_silent, stream], ids=["no answer", "no end of it"])
async def test_the_clients_own_time_out_is_a_failure(
    make_client: MakeClient, service: Service, recording: Recording, behaviour: Behaviour
) -> None:
    service.told.append(behaviour)
    async with make_client(recording.breaker, timeout_seconds=0.05) as client:
        with pytest.raises(client.errors):
            await client.post(service.address + SEND)
        event = outcome(recording)
    assert event.kind is Kind.FAILURE
    assert "Timeout" in (event.error_type or "")


async def test_a_time_out_while_a_body_streams_is_a_failure(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with make_client(recording.breaker, timeout_seconds=0.05) as client:
        with pytest.raises(client.errors):
            await read_all(client, service.address + SEND)
        event = outcome(recording)
    assert event.kind is Kind.FAILURE
    assert "Timeout" in (event.error_type or "")


async def test_an_error_in_mid_stream_is_a_failure(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(cut)
    async with make_client(recording.breaker) as client, client.stream(service.address + SEND) as chunks:
        assert await anext(chunks) == b"first"
        service.go_on.set()
        with pytest.raises(client.errors):
            await anext(chunks)
    event = outcome(recording)
    assert event.kind is Kind.FAILURE
    assert event.error_type is not None


async def test_a_body_that_is_cut_is_a_failure_for_whoever_reads_it_whole(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(cut)
    service.go_on.set()
    async with make_client(recording.breaker) as client:
        with pytest.raises(client.errors):
            await client.post(service.address + SEND)
    assert outcome(recording).kind is Kind.FAILURE


async def test_a_body_that_is_left_early_was_answered_well(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with make_client(recording.breaker) as client, client.stream(service.address + SEND) as chunks:
        async for _ in chunks:
            break
    event = outcome(recording)
    assert (event.kind, event.error_type) == (Kind.SUCCESS, None)


async def test_an_error_of_whoever_reads_a_body_is_none_of_the_service(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    with pytest.raises(ZeroDivisionError):
        async with make_client(recording.breaker) as client, client.stream(service.address + SEND):
            raise ZeroDivisionError
    assert outcome(recording).error_type is None


@pytest.mark.parametrize("behaviour", [keep_silent, stream], ids=["before the answer", "within it"])
async def test_a_cancelled_call_is_no_outcome(
    make_client: MakeClient, service: Service, recording: Recording, behaviour: Behaviour
) -> None:
    service.told.append(behaviour)
    async with make_client(recording.breaker) as client:
        task = asyncio.create_task(client.post(service.address + SEND))
        await service.waiting.wait()
        await asyncio.sleep(0.01)
        await cancel(task)
    assert recording.events() == []


async def test_reading_that_is_cancelled_is_no_outcome(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    begun = asyncio.Event()

    async def read(client: Client) -> None:
        async with client.stream(service.address + SEND) as chunks:
            async for _ in chunks:
                begun.set()

    async with make_client(recording.breaker) as client:
        task = asyncio.create_task(read(client))
        await begun.wait()
        await cancel(task)
    assert recording.events() == []


async def test_a_reader_that_is_cancelled_between_two_parts_is_no_outcome(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    begun = asyncio.Event()

    async def read(client: Client) -> None:
        async with client.stream(service.address + SEND) as chunks:
            async for _ in chunks:
                begun.set()
                await asyncio.Event().wait()

    async with make_client(recording.breaker) as client:
        task = asyncio.create_task(read(client))
        await begun.wait()
        await cancel(task)
    assert recording.events() == []


async def take(client: Client, address: str) -> None:
    await client.post(address)


async def leave_early(client: Client, address: str) -> None:
    async with client.stream(address):
        pass


async def cancel_soon(client: Client, address: str) -> None:
    async with asyncio.timeout(0.03):
        await client.post(address)


ENDINGS: dict[str, tuple[Behaviour, Callable[[Client, str], Awaitable[None]]]] = {
    "an answer": (status(200), take),
    "declined": (status(400), take),
    "too fast": (status(429), take),
    "left early": (stream, leave_early),
    "cancelled before the answer": (keep_silent, cancel_soon),
    "cancelled within it": (stream, cancel_soon),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_probe_gives_its_slot_back(make_client: MakeClient, service: Service, ending: str) -> None:
    recording = Recording(Policy(success_threshold=9))
    behaviour, use = ENDINGS[ending]
    await trip(recording.breaker)
    recording.clock.advance(60)
    service.told.append(behaviour)
    async with make_client(recording.breaker) as client:
        with suppress(TimeoutError):
            await use(client, service.address + SEND)
        assert recording.breaker.state.state is CircuitState.HALF_OPEN
        assert recording.breaker.state.probes == ()


@pytest.mark.parametrize("behaviour", [status(500), drop, cut], ids=["500", "drop", "cut"])
async def test_a_probe_that_fails_opens_the_breaker_again(
    make_client: MakeClient, service: Service, recording: Recording, behaviour: Behaviour
) -> None:
    await trip(recording.breaker)
    recording.clock.advance(60)
    service.told.append(behaviour)
    service.go_on.set()
    async with make_client(recording.breaker) as client:
        with suppress(client.errors):
            await client.post(service.address + SEND)
    assert (recording.breaker.state.state, recording.breaker.state.probes) == (CircuitState.OPEN, ())


async def test_a_second_probe_is_refused_while_the_first_ones_body_streams(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    await trip(recording.breaker)
    recording.clock.advance(60)
    service.told.append(stream)
    async with make_client(recording.breaker) as client, client.stream(service.address + SEND):
        with pytest.raises(CircuitBreakerOpenError):
            await client.post(service.address + SEND)
    assert len(service.asked) == 1


async def test_users_share_a_client_without_sharing_a_breaker(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    def breaker_of(request: Any) -> Any:
        return recording.registry.get_breaker(int(request.url.path.split("/")[1]))

    service.told.append(status(401))
    async with make_client(guard_of=breaker_of) as client:
        await client.post(service.address + "/1/send")
        assert await client.post(service.address + "/2/send") == (200, b"200")
        with pytest.raises(CircuitBreakerOpenError) as refused:
            await client.post(service.address + "/1/send")
    assert refused.value.user_id == 1


async def test_there_is_one_guard_or_a_way_to_tell_it(make_client: MakeClient, recording: Recording) -> None:
    with pytest.raises(TypeError, match="guard_of"):
        make_client()
    with pytest.raises(TypeError, match="guard_of"):
        make_client(recording.breaker, guard_of=lambda _: recording.breaker)


async def test_an_operation_is_called_what_the_user_says(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    async with make_client(recording.breaker, operation_of=lambda request: f"{request.method} it") as client:
        await client.post(service.address + "/orders/17")
    assert outcome(recording).operation == "POST it"


async def test_a_guard_that_tries_again_has_the_bad_answer_closed_before(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(fail_without_end)
    async with make_client(Twice(recording.breaker), timeout_seconds=2) as client:
        assert await client.post(service.address + SEND, b"hello") == (200, b"200")
    assert [body for _, body in service.asked] == [b"hello", b"hello"]
    first, second = recording.events()
    assert isinstance(second, Outcome)
    assert (first.kind, second.kind, second.attempt) == (Kind.FAILURE, Kind.SUCCESS, 2)


async def test_a_bot_that_has_to_wait_holds_no_connection_meanwhile(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    bot = BotFleet(recording.registry).get_instance(UserBotCredentials(1, TOKEN))
    guards = {"/1/send": bot, "/2/send": recording.registry.get_breaker(2)}
    service.told.append(status(429, "Retry-After: 50"))
    async with make_client(guard_of=lambda request: guards[request.url.path], timeout_seconds=2) as client:
        waiting = asyncio.create_task(client.post(service.address + "/1/send"))
        async with asyncio.timeout(2):
            while not bot.get_health().waiting:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.01)
        assert await client.post(service.address + "/2/send") == (200, b"200")
        bot.breaker.suspend()
        assert await waiting == (429, b"429")


async def test_the_last_bad_answer_reaches_the_caller_whole(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told += [status(503), status(502)]
    async with make_client(Twice(recording.breaker), timeout_seconds=2) as client:
        assert await client.post(service.address + SEND) == (502, b"502")
    assert recording.kinds() == [Kind.FAILURE, Kind.FAILURE]


async def test_a_bad_answer_of_a_call_that_is_given_up_is_closed(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    pausing = asyncio.Event()

    async def pause() -> None:
        pausing.set()
        await asyncio.Event().wait()

    service.told.append(fail_without_end)
    async with make_client(Twice(recording.breaker, pause), timeout_seconds=2) as client:
        task = asyncio.create_task(client.post(service.address + SEND))
        await pausing.wait()
        await cancel(task)
        # There is but one connection.
        assert await asyncio.wait_for(client.post(service.address + SEND), 1) == (200, b"200")


async def sent_once() -> AsyncIterator[bytes]:
    yield b"a part"


async def test_a_body_that_can_be_sent_only_once_is_not_sent_again(
    make_client: MakeClient, service: Service, recording: Recording
) -> None:
    service.told.append(status(503))
    guard = Twice(recording.breaker)
    async with make_client(guard) as client:
        assert await client.post(service.address + SEND, sent_once()) == (503, b"503")
    assert (guard.told, len(service.asked)) == ([False], 1)


BEHAVIOURS = [status(200), status(503), status(404), drop, cut, fail_without_end, stream]


async def misuse(client: Client, service: Service) -> None:
    """Have everything happen that can go wrong."""
    for behaviour in BEHAVIOURS:
        for use in (leave_early, cancel_soon, take):
            service.told.append(behaviour)
            if use is take:
                service.go_on.set()
            with suppress(*_as_tuple(client.errors), TimeoutError, BreakerStoreError):
                await use(client, service.address + SEND)
        service.go_on.clear()


def _as_tuple(errors: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return errors if isinstance(errors, tuple) else (errors,)


async def test_no_token_is_recorded(make_client: MakeClient, service: Service) -> None:
    recording = Recording(Policy(failure_threshold=99))
    async with make_client(recording.breaker, timeout_seconds=0.1) as client:
        await misuse(client, service)
    events: list[StoredEvent] = recording.events()
    assert len(events) > len(BEHAVIOURS)
    assert TOKEN.partition(":")[2] not in repr(events)


async def test_no_connection_is_left_unclosed(make_client: MakeClient, service: Service) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    recording = Recording(Policy(failure_threshold=99))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        async with make_client(Twice(recording.breaker), timeout_seconds=0.1) as client:
            await misuse(client, service)
        gc.collect()
    assert complaints == []
    assert [each for each in warned if issubclass(each.category, ResourceWarning)] == []


NAMES = [
    (("POST", "api.telegram.org", f"/bot{TOKEN}/sendMessage"), "sendMessage"),
    (("GET", "localhost", f"/telegram/bot{TOKEN}/getMe"), "getMe"),
    (("POST", "api.telegram.org", f"/bot{TOKEN}/test/getMe"), "getMe"),
    (("GET", "api.telegram.org", f"/file/bot{TOKEN}/photos/file_1.jpg"), "file"),
    (("GET", "api.telegram.org", f"/bot{TOKEN}/no/such/thing"), "GET api.telegram.org"),
    (("GET", "api.example.org", "/orders/17?key=secret"), "GET api.example.org"),
    (("DELETE", "example.org", "/robots/17/sendMessage"), "DELETE example.org"),
]


@pytest.mark.parametrize(("request_line", "name"), NAMES)
def test_a_request_is_named_by_its_method_and_without_its_path(
    request_line: tuple[str, str, str], name: str
) -> None:
    assert name_operation(*request_line) == name
