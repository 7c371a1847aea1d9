"""Each public call once, with the type that it gives. Only type-checked: nothing here is ever run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import assert_type

import aiogram
import aiohttp
import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from telegram.ext import Application

from breaker_store import (
    BotSuspendedError,
    BreakerStore,
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    EventId,
    Failure,
    Kind,
    Policy,
    StateDict,
    Transition,
    UnknownBreakerError,
    get_circuit_breaker_registry,
)
from breaker_store.bots import (
    NO_RETRIES,
    BotFleet,
    BotHealth,
    ChatRates,
    RetryPolicy,
    UserBotCredentials,
    UserBotInstance,
)
from breaker_store.failures import AIOGRAM, KNOWN_CLIENTS, Category, FailureTable
from breaker_store.in_thread import open_in_thread
from breaker_store.integrations import fastapi, opentelemetry, prometheus
from breaker_store.integrations.aiogram import CircuitBreakerMiddleware
from breaker_store.integrations.aiohttp import circuit_breaker_middleware
from breaker_store.integrations.asgi import StoreLifespan, lifespan
from breaker_store.integrations.httpx import BreakerTransport
from breaker_store.integrations.python_telegram_bot import BreakerRequest
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.protected_call import Guard
from breaker_store.testing import FakeClock, MemoryStore, Outcome, force_state, memory_store


async def send(chat_id: int, text: str = "") -> bytes:
    return f"{chat_id} {text}".encode()


def send_soon(chat_id: int) -> Awaitable[bytes]:
    return send(chat_id)


def make_breakers() -> None:
    CircuitBreaker()
    CircuitBreaker(5, 60.0, 2)
    CircuitBreaker(failure_threshold=5, timeout_seconds=60, success_threshold=2, half_open_max_calls=1)
    CircuitBreaker(policy=Policy(counted_errors=(OSError, "aiohttp.ClientError"), ignored_errors=(KeyError,)))
    CircuitBreaker(clock=ManualClock())


async def use_a_breaker(breaker: CircuitBreaker) -> None:
    assert_type(await breaker.call(send, 1), bytes)
    assert_type(await breaker.call(send, chat_id=1, text="hi"), bytes)
    assert_type(await breaker.call(send_soon, 1), bytes)
    assert_type(await breaker.call(lambda: send(1)), bytes)
    async with breaker as entered:
        assert_type(entered, CircuitBreaker)
    await breaker.call(send, "1")  # type: ignore[arg-type]
    await breaker.call(send, 1, texts="hi")  # type: ignore[call-arg]
    await breaker.call(len, "hi")  # type: ignore[arg-type]


def use_a_breaker_in_a_thread(breaker: CircuitBreaker) -> None:
    assert_type(breaker.call_sync(str.upper, "hi"), str)
    assert_type(breaker.with_durability("committed").call_sync(len, "hi"), int)
    breaker.call_sync(str.upper, 1)  # type: ignore[arg-type]

    @breaker.sync
    def greet(name: str) -> str:
        return name

    assert_type(greet("Ada"), str)
    greet(1)  # type: ignore[arg-type]


async def count(to: int) -> AsyncIterator[int]:
    yield to


async def count_soon(to: int) -> AsyncIterator[int]:
    return count(to)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


async def stream_through_a_breaker(breaker: CircuitBreaker) -> None:
    async for number in breaker.stream(count, 3):
        assert_type(number, int)
    async for number in breaker.with_durability("behind").stream(count_soon, to=3):
        assert_type(number, int)
    async with breaker.entering(connect, "https://") as value:
        assert_type(value, bytes)
    breaker.stream(count, "3")  # type: ignore[arg-type]
    breaker.entering(connect, 3)  # type: ignore[arg-type]

    @breaker
    async def updates(limit: int) -> AsyncIterator[str]:
        yield str(limit)

    @breaker
    async def echo() -> AsyncGenerator[str, int]:
        yield "hi"

    assert_type(updates(1), AsyncIterator[str])
    assert_type(echo(), AsyncGenerator[str, int])
    assert_type(await echo().asend(1), str)


def open_a_store_in_a_thread() -> None:
    with open_in_thread(data_dir="data", policy=Policy(), durability="committed") as store:
        assert_type(store, BreakerStore)
        store.flush_sync()
    open_in_thread(drain_on_sigterm=True)  # type: ignore[call-arg]


async def test_a_bot() -> None:
    async with memory_store(policy=Policy(), clock=FakeClock(), durability="committed") as store:
        assert_type(store, MemoryStore)
        assert_type(store.registry, CircuitBreakerRegistry)
        await store.flush()
        for event in store.events(101):
            assert_type(event, Outcome | Transition)
        store.clock.advance(60)
        force_state(store.registry.get_breaker(101), "half_open")
        force_state(store.registry.get_breaker(101), CircuitState.OPEN)


async def use_a_decorated_function(breaker: CircuitBreaker) -> None:
    @breaker
    async def greet(name: str, *, loudly: bool = False) -> str:
        return name.upper() if loudly else name

    assert_type(await greet("Ada", loudly=True), str)
    await greet(1)  # type: ignore[arg-type]


def look_at_a_breaker(breaker: CircuitBreaker) -> None:
    state = breaker.get_state()
    assert_type(state, StateDict)
    assert_type(state["state"], str)
    assert_type(state["failure_count"], int)
    assert_type(state["timeout_remaining"], float)
    assert_type(state["last_failure_time"], float | None)
    assert_type(breaker.user_id, int | None)
    assert_type(breaker.state.state, CircuitState)
    breaker.reset()
    breaker.reset(actor="ada", reason="mended")
    breaker.set_policy(Policy(failure_threshold=3), actor="ada", reason="fragile")
    breaker.suspend(actor="ada", reason="unpaid bill")
    breaker.resume(actor="ada", reason="paid")


def look_at_a_refusal(error: CircuitBreakerOpenError) -> None:
    assert_type(error.user_id, int | None)
    assert_type(error.timeout_remaining, float | None)
    assert_type(error.open_since, float | None)
    assert_type(error.opened_by, EventId | None)
    assert_type(error.last_failure, Failure | None)
    if isinstance(error, BotSuspendedError):
        assert_type(error.reason, str | None)
        assert_type(error.suspended_since, float | None)


def use_a_registry() -> None:
    registry = CircuitBreakerRegistry(5, 60.0, 2, policy=Policy(), clock=ManualClock())
    assert_type(registry.get_breaker(101), CircuitBreaker)
    assert_type(registry.find_breaker(101), CircuitBreaker | None)
    assert_type(registry.reset_breaker(101, actor="ada", reason="mended"), bool)
    assert_type(registry.get_open_breakers(), list[int])
    assert_type(registry.get_half_open_breakers(), list[int])
    assert_type(registry.get_all_states(), dict[int, StateDict])
    assert_type(len(registry), int)
    assert_type(list(registry), list[CircuitBreaker])
    registry.set_policy(101, Policy(timeout_seconds=5), actor="ada", reason="impatient")
    registry.get_breaker("101")  # type: ignore[arg-type]
    assert_type(get_circuit_breaker_registry(), CircuitBreakerRegistry)


def listen(registry: CircuitBreakerRegistry) -> None:
    def hear(user_id: int | None, transition: Transition) -> None:
        assert_type(transition.kind, Kind)

    async def hear_slowly(user_id: int | None, transition: Transition) -> None: ...

    assert_type(registry.subscribe(hear), Callable[[], None])
    registry.subscribe(hear_slowly)()


async def open_a_store() -> None:
    async with BreakerStore.open() as store:
        assert_type(store, BreakerStore)
        assert_type(store.registry, CircuitBreakerRegistry)
        await store.flush()
        assert_type(store.recorder.stats().queued, int)
    async with BreakerStore.open(data_dir=Path("data"), policy=Policy(), queue_limit=9, drain_seconds=1.0):
        pass
    async with BreakerStore.open(database_url="", registry=get_circuit_breaker_registry()):
        pass


def look_at_an_unknown_breaker(error: UnknownBreakerError) -> None:
    assert_type(error.user_id, int)


async def instrument() -> None:
    async with BreakerStore.open(data_dir="data") as store:
        with prometheus.instrument(store), opentelemetry.instrument(store):
            pass
        with prometheus.instrument(store, CollectorRegistry(), users=(101, 102)):
            pass


async def use_a_bot(registry: CircuitBreakerRegistry) -> None:
    fleet = BotFleet(
        registry, requests_per_second=500, retries=RetryPolicy(attempts=3), failures=KNOWN_CLIENTS
    )
    bot = fleet.get_instance(UserBotCredentials(101, "token", requests_per_second=30, concurrency=5))
    assert_type(bot, UserBotInstance)
    assert_type(await bot.rate_limited_request(send, chat_id=1, text="hi", operation="sendMessage"), bytes)
    assert_type(bot.get_health(), BotHealth)
    assert_type(fleet.find_instance(101), UserBotInstance | None)
    BotFleet(registry, chats=ChatRates(messages_per_second=None), retries=NO_RETRIES)
    await bot.rate_limited_request(send(1))  # type: ignore[arg-type]


def say_what_errors_mean() -> None:
    assert_type(
        AIOGRAM | {404: Category.UNKNOWN, "5xx": Category.DECLINED, KeyError: Category.PERMANENT},
        FailureTable,
    )
    CircuitBreakerRegistry(failures=AIOGRAM)


async def guard_a_client(breaker: CircuitBreaker, bot: UserBotInstance) -> None:
    guards: list[Guard] = [breaker, breaker.with_durability("committed"), bot]
    aiogram.Bot("token").session.middleware(CircuitBreakerMiddleware(guards[0]))
    CircuitBreakerMiddleware(guard_of=lambda bot: breaker, passing_by={"getMe"})
    Application.builder().token("token").request(BreakerRequest(bot)).build()
    httpx.AsyncClient(transport=BreakerTransport(bot))
    BreakerTransport(guard_of=lambda request: breaker, operation_of=lambda request: request.method)
    aiohttp.ClientSession(middlewares=[circuit_breaker_middleware(breaker)])


def serve_an_application() -> None:
    fastapi.install(FastAPI(lifespan=lifespan(database_url="")))
    StoreLifespan(FastAPI(), data_dir="data")
