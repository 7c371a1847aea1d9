from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from breaker_store.core.cleaning import clean_text
from breaker_store.demo.fleet import Bot
from breaker_store.demo.provider import Provider, make_token, run_provider
from breaker_store.demo.schedule import Behaviour

BOT = 3


@asynccontextmanager
async def bot_at(behaviour: Behaviour, *, timeout_seconds: float = 10.0) -> AsyncIterator[Bot]:
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    async with (
        run_provider(lambda _bot: behaviour) as provider,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        yield Bot(session, lambda: provider.address_of(BOT), make_token(BOT))


async def test_a_healthy_service_answers_with_the_number_of_the_message() -> None:
    async with bot_at(Behaviour.HEALTHY) as bot:
        assert [await bot.send_message(chat_id=1, text="hi") for _ in range(3)] == [1, 2, 3]


async def test_a_slow_service_outlasts_the_clients_patience() -> None:
    async with bot_at(Behaviour.SLOW, timeout_seconds=0.1) as bot:
        with pytest.raises(TimeoutError):
            await bot.send_message(chat_id=1, text="hi")


async def test_a_server_error_arrives_as_503() -> None:
    async with bot_at(Behaviour.SERVER_ERROR) as bot:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await bot.send_message(chat_id=1, text="hi")
    assert raised.value.status == 503


async def test_a_dropped_connection_gives_no_answer() -> None:
    async with bot_at(Behaviour.DROPPED) as bot:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await bot.send_message(chat_id=1, text="hi")


async def test_a_refused_connection_finds_nobody_listening() -> None:
    async with bot_at(Behaviour.REFUSED) as bot:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await bot.send_message(chat_id=1, text="hi")
    assert isinstance(raised.value.os_error, ConnectionRefusedError)


async def test_each_bot_gets_its_own_behaviour_and_it_may_change() -> None:
    behaviours = {0: Behaviour.HEALTHY, 1: Behaviour.SERVER_ERROR}
    async with run_provider(behaviours.__getitem__) as provider, aiohttp.ClientSession() as session:

        async def status_of(bot: int) -> int:
            address = f"{provider.address_of(bot)}/bot{make_token(bot)}/sendMessage"
            async with session.post(address, json={}) as response:
                return response.status

        assert [await status_of(0), await status_of(1)] == [200, 503]
        behaviours[1] = Behaviour.HEALTHY
        assert await status_of(1) == 200


@pytest.mark.parametrize("token", ["7000000003:forged", "nonsense", f"{make_token(3)}x"])
async def test_a_forged_token_is_turned_away(token: str) -> None:
    async with (
        run_provider(lambda _bot: Behaviour.HEALTHY) as provider,
        aiohttp.request("POST", f"{provider.address_of(3)}/bot{token}/sendMessage") as response,
    ):
        assert response.status == 401


def test_a_token_has_the_form_of_a_real_one_and_so_is_hidden() -> None:
    assert make_token(3) == make_token(3) != make_token(4)
    address = f"http://127.0.0.1/bot{make_token(3)}/sendMessage"
    assert clean_text(address) == "http://127.0.0.1/bot[hidden]/sendMessage"


def test_the_dead_address_is_another_one() -> None:
    provider = Provider(lambda bot: Behaviour.REFUSED if bot else Behaviour.HEALTHY, 8001, 8002)
    assert [provider.address_of(0), provider.address_of(1)] == [
        "http://127.0.0.1:8001",
        "http://127.0.0.1:8002",
    ]
