"""What is true of aiohttp alone; see test_http_calls.py for what all clients have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from breaker_store import CircuitBreaker, Durability
from breaker_store.core.events import Kind, Outcome
from breaker_store.integrations.aiohttp import circuit_breaker_middleware
from tests.integrations.http_clients import Twice
from tests.integrations.http_service import SEND, Service, cut, drop, status, stream
from tests.runtime.driving import Recording
from tests.runtime.recorders import RuledLog, numbers_on_disk
from tests.runtime.recorders import recording as process_recording


@asynccontextmanager
async def session_of(breaker: CircuitBreaker, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(middlewares=[circuit_breaker_middleware(breaker)], **options) as session:
        yield session


async def test_a_session_that_raises_for_statuses_raises_its_own_error(
    service: Service, recording: Recording
) -> None:
    service.told.append(status(503))
    async with session_of(recording.breaker, raise_for_status=True) as session:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await session.get(service.address)
    assert raised.value.status == 503
    assert recording.kinds() == [Kind.FAILURE]


async def test_a_single_request_may_have_the_breaker(service: Service, recording: Recording) -> None:
    middleware = circuit_breaker_middleware(recording.breaker)
    async with aiohttp.ClientSession() as session:
        await (await session.get(service.address, middlewares=[middleware])).read()
        await (await session.get(service.address)).read()
    assert recording.kinds() == [Kind.SUCCESS]


async def test_a_journaled_call_is_on_disk_when_its_body_has_arrived(
    service: Service, tmp_path: Path
) -> None:
    service.told.append(stream)
    log = RuledLog()
    log.hold()
    async with (
        process_recording(log, tmp_path, Durability.JOURNALED) as process,
        session_of(process.breaker) as session,
        session.get(service.address) as answer,
    ):
        service.go_on.set()
        await answer.read()
        assert numbers_on_disk(tmp_path) == [1]
        await log.release()


class SilentResolver(AbstractResolver):
    """A name server that gives no answer."""

    async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        pass


async def test_the_total_time_out_while_it_connects_is_a_failure_too(recording: Recording) -> None:
    options: dict[str, Any] = {
        "connector": aiohttp.TCPConnector(resolver=SilentResolver()),
        "timeout": aiohttp.ClientTimeout(total=0.05, ceil_threshold=60),
    }
    async with session_of(recording.breaker, **options) as session:
        with pytest.raises(TimeoutError):
            await session.get("http://example.org/")
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    assert (event.kind, event.error_type) == (Kind.FAILURE, "TimeoutError")


async def test_a_time_out_of_the_callers_own_is_a_cancellation_and_no_outcome(
    service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with session_of(recording.breaker) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03), session.get(service.address) as answer:
                await answer.read()
    assert recording.events() == []


async def test_a_time_out_that_is_being_handled_is_none_of_what_is_sent_meanwhile(
    service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with session_of(recording.breaker) as session:
        try:
            raise TimeoutError
        except TimeoutError:
            async with session.get(service.address):
                pass
    assert recording.kinds() == [Kind.SUCCESS]


async def test_what_aiohttp_itself_tries_again_is_a_call_of_its_own(
    service: Service, recording: Recording
) -> None:
    service.told.append(drop)
    async with session_of(recording.breaker) as session, session.get(service.address) as answer:
        assert answer.status == 200
    assert recording.kinds() == [Kind.FAILURE, Kind.SUCCESS]


async def test_each_redirect_is_a_call_of_its_own(service: Service, recording: Recording) -> None:
    service.told.append(status(302, "Location: /elsewhere"))
    async with session_of(recording.breaker) as session, session.get(service.address) as answer:
        assert answer.status == 200
    assert recording.kinds() == [Kind.SUCCESS, Kind.SUCCESS]


async def test_an_error_that_its_reader_did_not_wait_for_is_a_failure(
    service: Service, recording: Recording
) -> None:
    service.told.append(cut)
    async with session_of(recording.breaker) as session, session.get(service.address) as answer:
        service.go_on.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.wait_eof()
    assert recording.kinds() == [Kind.FAILURE]


async def test_a_web_socket_is_a_call_until_it_is_open(recording: Recording, unused_tcp_port: int) -> None:
    async def accept(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    application = web.Application()
    application.router.add_get("/", accept)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        async with (
            session_of(recording.breaker) as session,
            session.ws_connect(f"http://127.0.0.1:{unused_tcp_port}/"),
        ):
            assert recording.kinds() == [Kind.SUCCESS]
    finally:
        await runner.cleanup()


BODIES = [
    (None, True),
    ({"text": "hi"}, True),
    (b"hi", True),
    (aiohttp.MultipartWriter(), False),
]


@pytest.mark.parametrize(("body", "is_repeatable"), BODIES, ids=["none", "form", "bytes", "parts"])
async def test_only_bodies_that_are_in_memory_are_sent_again(
    service: Service, recording: Recording, body: Any, is_repeatable: bool
) -> None:
    guard = Twice(recording.breaker)
    async with aiohttp.ClientSession(middlewares=[circuit_breaker_middleware(guard)]) as session:
        await (await session.post(service.address + SEND, data=body)).read()
    assert guard.told == [is_repeatable]
