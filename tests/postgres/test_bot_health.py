"""How a bot is: the same from its events as they happen, from the log, over HTTP, and from the roll-ups."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import reduce

import asyncpg
import pytest

from breaker_store.core.buckets import Span
from breaker_store.core.events import EventId, Kind, Outcome, Permit
from breaker_store.core.health import DEFAULT_THRESHOLDS, MINUTE_US, Tally
from breaker_store.postgres.bot_health import read_window
from breaker_store.postgres.codec import microseconds
from tests.postgres.histories import Past

ERRORS = ["TimeoutError", "Unauthorized", "aiogram.exceptions.TelegramRetryAfter", None]
USER = 101
WRITERS = 3
BATCH = 200


def draw_outcomes(chance: random.Random, span: Span, number: int) -> list[Outcome]:
    """Draw outcomes of several writers, of all kinds, some of them at the same time."""
    times = sorted(chance.randrange(span.begin, span.end) // 1_000 * 1_000 for _ in range(number))
    numbers = [0] * WRITERS
    return [draw_outcome(chance, at, numbers) for at in times]


def draw_outcome(chance: random.Random, at: int, numbers: list[int]) -> Outcome:
    writer = chance.randrange(WRITERS)
    numbers[writer] += 1
    kind = chance.choices([Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED], [6, 3, 1])[0]
    return Outcome(
        kind, EventId(writer + 1, numbers[writer]), at, Permit(0, 0),
        duration_us=chance.choice([None, 0, chance.randrange(10**7)]),
        error_type=chance.choice(ERRORS) if kind is Kind.FAILURE else None,
        count=chance.randrange(1, 5) if kind is Kind.REJECTED else None,
    )  # fmt: skip


async def store_drawn(past: Past, drawn: list[Outcome]) -> None:
    for writer in range(1, WRITERS + 1):
        own = [outcome for outcome in drawn if outcome.event_id.writer_id == writer]
        for first in range(0, len(own), BATCH):
            await past.store(USER, own[first : first + BATCH])


def without_latest(whole: Tally) -> Tally:
    """Leave out what no roll-up has, and what is no more exact than a floating point number."""
    return replace(
        whole, weighted_us=0, weight_left=0, last_success_at=None, last_failure_at=None, last_error_type=None,
        is_rate_limited=False,
    )  # fmt: skip


def assert_same(one: Tally, other: Tally) -> None:
    assert without_latest(one) == without_latest(other)
    assert one.average_ms == pytest.approx(other.average_ms)


async def test_x(past, connection: asyncpg.Connection):
    now = microseconds(await connection.fetchval("SELECT clock_timestamp()"))
    window = Span(DEFAULT_THRESHOLDS.window_begin(now), now // MINUTE_US * MINUTE_US + MINUTE_US)
    drawn = draw_outcomes(random.Random(1), Span(window.begin - 10**9, now), 4_000)
    await store_drawn(past, drawn)
    live = reduce(
        lambda before, outcome: before + Tally.of(outcome),
        sorted([o for o in drawn if o.at >= window.begin], key=lambda o: (o.at, o.event_id)),
        Tally(),
    )
    async with connection.transaction():
        assert_same(await read_window(connection, USER, now, window), live)
