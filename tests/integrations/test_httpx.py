"""What is true of httpx alone; see test_http_calls.py for what all clients have in common."""

from __future__ import annotations

import asyncio
import gc

import httpx
import pytest

from breaker_store.bots import BotFleet, UserBotCredentials
from breaker_store.core.events import CircuitState, Kind, Outcome, Verdict
from breaker_store.integrations.httpx import BreakerTransport
from tests.integrations.http_service import SEND, TOKEN, Service, cut, status, stream
from tests.runtime.driving import USER, Recording


async def test_a_client_needs_no_more_than_the_breaker(service: Service, recording: Recording) -> None:
    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker)) as client:
        answer = await client.get(service.address + SEND)
    assert (answer.text, recording.kinds()) == ("200", [Kind.SUCCESS])


async def test_raising_for_a_status_raises_the_clients_own_error(
    service: Service, recording: Recording
) -> None:
    service.told.append(status(503))
    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker)) as client:
        answer = await client.get(service.address)
    with pytest.raises(httpx.HTTPStatusError):
        answer.raise_for_status()
    assert recording.kinds() == [Kind.FAILURE]


async def test_each_redirect_is_a_call_of_its_own(service: Service, recording: Recording) -> None:
    service.told.append(status(302, "Location: /elsewhere"))
    transport = BreakerTransport(recording.breaker)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        assert (await client.get(service.address)).status_code == 200
    assert recording.kinds() == [Kind.SUCCESS, Kind.SUCCESS]


async def test_an_answer_of_a_transport_for_tests_ends_its_call(recording: Recording) -> None:
    inner = httpx.MockTransport(lambda _: httpx.Response(200, json={"ok": True}))
    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker, inner)) as client:
        assert (await client.get("http://example.org/")).json() == {"ok": True}
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    assert (event.kind, event.operation) == (Kind.SUCCESS, "GET example.org")


async def test_the_transport_that_sends_is_closed_with_the_client(recording: Recording) -> None:
    closed: list[bool] = []

    class Inner(httpx.AsyncHTTPTransport):
        async def aclose(self) -> None:
            closed.append(True)
            await super().aclose()

    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker, Inner())):
        pass
    assert closed == [True]


async def test_an_answer_that_is_never_read_ends_its_call_when_it_is_closed(
    service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker)) as client:
        answer = await client.send(client.build_request("GET", service.address), stream=True)
        assert recording.events() == []
        await answer.aclose()
    assert recording.kinds() == [Kind.SUCCESS]


async def test_a_body_whose_reader_is_thrown_away_was_answered_well(
    service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker)) as client:
        answer = await client.send(client.build_request("GET", service.address), stream=True)
        async for _ in answer.aiter_raw():
            break
        gc.collect()
        for _ in range(10):  # the event loop ends one generator after the other
            await asyncio.sleep(0)
        assert recording.kinds() == [Kind.SUCCESS]
        await answer.aclose()
    assert recording.events() == []


async def test_an_answer_that_is_thrown_away_unclosed_gives_its_place_among_the_bots_calls_back(
    service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    bot = BotFleet(recording.registry).get_instance(UserBotCredentials(USER, TOKEN, concurrency=1))
    async with httpx.AsyncClient(transport=BreakerTransport(bot)) as client:
        answer = await client.send(client.build_request("GET", service.address), stream=True)
        assert bot.get_health().under_way == 1
        del answer
        gc.collect()
        async with asyncio.timeout(5):
            assert (await client.get(service.address)).status_code == 200
    assert recording.kinds() == [Kind.SUCCESS, Kind.SUCCESS]


async def test_who_finds_all_connections_taken_has_learned_nothing_of_the_service(
    service: Service, recording: Recording
) -> None:
    service.told.append(stream)
    one_connection = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
    transport = BreakerTransport(
        guard_of=lambda request: recording.registry.get_breaker(request.extensions["user_id"]),
        transport=one_connection,
    )
    timeout = httpx.Timeout(5, pool=0.01)
    async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
        async with client.stream("GET", service.address, extensions={"user_id": USER + 1}):
            for _ in range(5):
                with pytest.raises(httpx.PoolTimeout):
                    await client.get(service.address, extensions={"user_id": USER})
        assert recording.verdicts() == 5 * [Verdict.NOT_COUNTED] + [Verdict.COUNTED]
    assert recording.breaker.state.state is CircuitState.CLOSED


async def test_a_cut_body_is_the_clients_own_error(service: Service, recording: Recording) -> None:
    service.told.append(cut)
    service.go_on.set()
    async with httpx.AsyncClient(transport=BreakerTransport(recording.breaker)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(service.address)
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    assert event.error_type == "httpx.RemoteProtocolError"
