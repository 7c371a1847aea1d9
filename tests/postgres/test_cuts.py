"""Events are stored once, at whatever message of the protocol their connection is cut, freezes or becomes slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.cuts import (
    IMPATIENT,
    OCCASIONS,
    Occasion,
    appending,
    complaints,
    cut_at_messages,
    freeze,
)
from tests.crash.starts import Starter, cut_starts
from tests.depth import step
from tests.postgres.proxy import Proxy

on_each_occasion = pytest.mark.parametrize("occasion", OCCASIONS, ids=str)


@on_each_occasion
async def test_a_connection_that_is_cut_at_any_message_costs_no_event_and_doubles_none(
    database_url: str, tmp_path: Path, occasion: Occasion
) -> None:
    # Most of the messages are those of connecting.
    places = step(3) if occasion.reconnects else 1
    async with appending(database_url, tmp_path) as appender:
        cuts = await cut_at_messages(appender, occasion, places)
    assert cuts > 10
    assert await complaints(database_url, appender.happened, tmp_path) == []


@on_each_occasion
async def test_a_connection_that_freezes_and_thaws_late_costs_no_event_and_doubles_none(
    database_url: str, tmp_path: Path, occasion: Occasion
) -> None:
    async with appending(database_url, tmp_path, **IMPATIENT) as appender:
        frozen = await freeze(appender, occasion, first=1, step=step(9))
    assert frozen > 3
    assert await complaints(database_url, appender.happened, tmp_path) == []


@on_each_occasion
async def test_a_network_that_is_slower_than_the_patience_costs_no_event_and_doubles_none(
    database_url: str, tmp_path: Path, occasion: Occasion
) -> None:
    def hasten_at_the_third() -> None:
        if appender.troubles == 3:
            appender.proxy.delay_seconds = 0

    async with appending(database_url, tmp_path, **IMPATIENT) as appender:
        appender.at_trouble = hasten_at_the_third
        await appender.append(occasion)
        await appender.append(occasion, delay_seconds=0.03)
        assert appender.troubles >= 3
    assert await complaints(database_url, appender.happened, tmp_path) == []


async def test_a_start_that_is_cut_at_any_message_delivers_an_old_spool_once(
    database_url: str, tmp_path: Path
) -> None:
    async with Proxy.to(database_url) as proxy:
        starter = Starter(proxy, tmp_path)
        cuts = await cut_starts(starter, first=2, step=step(31))
    assert cuts > 10
    assert await complaints(database_url, starter.happened, tmp_path) == []
