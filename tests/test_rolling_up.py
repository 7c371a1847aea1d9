"""Roll-ups beside a server: run after run, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from breaker_store.rolling_up import (
    LATENESS_SECONDS,
    RETRY_SECONDS,
    RollingUp,
    rolling_up,
    seconds_to_next_minute,
)

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


class EnoughError(Exception):
    """The test has seen enough."""


class Pauses:
    """Notes the pauses instead of making them, and ends it at the last one."""

    def __init__(self, most: int) -> None:
        self.seconds: list[float] = []
        self._most = most

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._most:
            raise EnoughError


async def test_a_database_that_is_away_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses(3)
    with caplog.at_level(logging.WARNING), pytest.raises(EnoughError):
        await RollingUp(NOWHERE, pause=pauses).run()
    assert pauses.seconds == [RETRY_SECONDS] * 3
    assert len(caplog.records) == 1


async def test_a_run_that_went_well_is_followed_by_one_in_the_next_minute(database_url: str) -> None:
    pauses = Pauses(2)
    with pytest.raises(EnoughError):
        await RollingUp(database_url, pause=pauses).run()
    assert all(0 < seconds <= 60 for seconds in pauses.seconds)
    assert pauses.seconds != [RETRY_SECONDS] * 2


@pytest.mark.parametrize(("now", "seconds"), [(0.0, 5.0), (4.0, 1.0), (5.0, 60.0), (6.0, 59.0), (65.5, 59.5)])
def test_a_minute_is_counted_a_few_seconds_after_it_is_over(now: float, seconds: float) -> None:
    assert LATENESS_SECONDS == 5
    assert seconds_to_next_minute(now) == seconds


async def test_it_begins_at_once_and_ends_with_the_block(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with rolling_up(database_url):
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT rolled_up_at FROM rollup_progress") is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert "roll-ups" not in {task.get_name() for task in asyncio.all_tasks()}
