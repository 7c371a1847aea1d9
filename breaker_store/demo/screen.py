"""What one looks at while the demo runs: a full screen on a terminal, plain lines everywhere else."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.table import Table
from rich.text import Text

from breaker_store.core.events import CircuitState
from breaker_store.core.policy import MICROSECONDS
from breaker_store.demo.observing import Ailing, Heard, Observation, Observer
from breaker_store.demo.wording import (
    describe_breakers,
    describe_calls,
    describe_events,
    describe_failure,
    describe_heard,
    describe_reason,
    describe_standing,
    describe_summary,
    example_requests,
)

FRAME_SECONDS = 0.25
SUMMARY_SECONDS = 5.0
NOTICE_SECONDS = 15.0

Item = TypeVar("Item")

COLOURS = {CircuitState.CLOSED: "green", CircuitState.OPEN: "red", CircuitState.HALF_OPEN: "yellow"}


@dataclass(frozen=True, slots=True)
class Introduction:
    """What stays the same during a run: what is shown, what was known at the start, where the API is."""

    title: str
    known: str
    api_url: str


class Display(Protocol):
    """A way to show the demo."""

    def say(self, text: str) -> None:
        """Tell something now."""

    def hear(self, heard: Heard) -> None:
        """Learn of a transition as it happens."""

    async def show(self, observer: Observer, introduction: Introduction) -> None:
        """Show how things stand, again and again, until cancelled."""


def choose_display(console: Console) -> Display:
    is_drawable = console.is_terminal and not console.is_dumb_terminal
    return LiveScreen(console) if is_drawable else PlainLines(console)


class PlainLines:
    """A line for each transition, and a summary every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._heard: list[Heard] = []

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(Text(f"{elapsed:6.1f} s  {text}"), soft_wrap=True)

    def hear(self, heard: Heard) -> None:
        """Keep it for `show` to print: when nobody reads any more, the end must come there, not in a listener."""
        self._heard.append(heard)

    async def show(self, observer: Observer, introduction: Introduction) -> None:
        self.say(introduction.title)
        for request in example_requests(introduction.api_url, None):
            self.say(f"ask the API: {request}")
        frames_a_summary = round(SUMMARY_SECONDS / FRAME_SECONDS)
        try:
            for frame in itertools.count():
                self._say_heard()
                if frame % frames_a_summary == 0:
                    self.say(describe_summary(observer.look()))
                await asyncio.sleep(FRAME_SECONDS)
        finally:
            self._say_heard()

    def _say_heard(self) -> None:
        heard, self._heard = self._heard, []
        for each in heard:
            self.say(describe_heard(each))


class LiveScreen:
    """The whole terminal, drawn anew a few times a second; what was there before comes back at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_live = False
        self._notice = ""
        self._noticed = 0.0

    def say(self, text: str) -> None:
        if self._is_live:
            self._notice, self._noticed = text, time.monotonic()
        else:
            self._console.print(Text(text), soft_wrap=True)

    def hear(self, heard: Heard) -> None:
        """Do nothing: the next frame shows it."""

    async def show(self, observer: Observer, introduction: Introduction) -> None:
        frame = self._draw(observer.look(), introduction)
        # Drawn in the event loop, not in rich's thread: the breakers change under nobody's hands.
        with Live(frame, console=self._console, screen=True, auto_refresh=False) as live:
            self._is_live = True
            try:
                while True:
                    live.update(self._draw(observer.look(), introduction), refresh=True)
                    await asyncio.sleep(FRAME_SECONDS)
            finally:
                self._is_live = False

    def _draw(self, seen: Observation, introduction: Introduction) -> RenderableType:
        is_recent = time.monotonic() - self._noticed < NOTICE_SECONDS
        return draw(seen, introduction, self._notice if is_recent else "")


def draw(seen: Observation, introduction: Introduction, notice: str) -> RenderableType:
    """Draw one frame, made for 80 columns and 24 lines or more; `notice` is empty if there is none."""
    requests = example_requests(introduction.api_url, seen.example_user_id)
    frame = Layout()
    frame.split_column(
        Layout(_heading(introduction), size=2),
        Layout(_figures(seen), size=3),
        Layout(_AilingTable(seen.ailing), ratio=1),
        Layout(_LatestTable(seen.latest), ratio=1),
        Layout(_footing(seen, requests, notice), size=3 + len(requests)),
    )
    return frame


def _heading(introduction: Introduction) -> RenderableType:
    title = Table.grid(expand=True)
    title.add_column(no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True)
    title.add_row(Text(introduction.title, style="bold"), Text("Ctrl-C ends"))
    return Group(title, _line(f"at the start: {introduction.known}", "dim"))


def _figures(seen: Observation) -> RenderableType:
    columns = Table.grid(expand=True)
    columns.add_row(_painted_breakers(seen), Text(f"events: {describe_events(seen.recorder)}"))
    return Group(_painted_fleet(seen.fleet), columns, _line(describe_calls(seen)))


def _painted_fleet(fleet: Sequence[CircuitState]) -> Text:
    """Draw a square for each bot, as far as the line goes."""
    text = _line("")
    for state in fleet:
        text.append("■", style=COLOURS[state])
    return text


def _painted_breakers(seen: Observation) -> Text:
    text = Text(describe_breakers(seen))
    for state, colour in COLOURS.items():
        text.highlight_regex(rf"\d+ {state.replace('_', '-')}", f"bold {colour}")
    return text


def _footing(seen: Observation, requests: Sequence[str], notice: str) -> RenderableType:
    if notice:
        upper = Text(f"notice: {notice}", style="bold yellow")
    else:
        why = describe_failure(seen.last_failure) if seen.last_failure else "nothing has failed yet"
        upper = Text(f"the last failure as it is stored: {why}")
    return Group(_Lines(upper, 2), _line("ask the API, from another terminal:", "dim"), *map(_line, requests))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


class _Lines:
    """A text in exactly so many lines."""

    def __init__(self, text: Text, height: int) -> None:
        self._text = text
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = list(self._text.wrap(console, options.max_width))[: self._height]
        yield from lines
        yield from [Text()] * (self._height - len(lines))


class _AilingTable:
    """The breakers that are not closed, as many as there is room for."""

    def __init__(self, ailing: Sequence[Ailing]) -> None:
        self._ailing = ailing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, title = _fit(self._ailing, options, "not closed")
        table = _make_table(title, ("user", 6), ("state", 9), ("wait", 15), ("why", None))
        for each in shown:
            state = each.state.state
            table.add_row(
                str(each.user_id),
                Text(state.replace("_", "-"), style=COLOURS[state]),
                describe_standing(each),
                Text(describe_failure(each.state.last_failure)),
            )
        yield table


class _LatestTable:
    """The latest transitions, as many as there is room for."""

    def __init__(self, latest: Sequence[Heard]) -> None:
        self._latest = latest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, title = _fit(self._latest, options, "the latest transitions")
        table = _make_table(title, ("at", 8), ("user", 6), ("became", 9), ("because", None))
        for heard in shown:
            transition = heard.transition
            state = transition.to_state
            at = datetime.fromtimestamp(transition.at / MICROSECONDS, UTC).astimezone()
            table.add_row(
                f"{at:%H:%M:%S}",
                str(heard.user_id),
                Text(state.replace("_", "-"), style=COLOURS[state]),
                Text(describe_reason(transition)),
            )
        yield table


def _fit(items: Sequence[Item], options: ConsoleOptions, title: str) -> tuple[Sequence[Item], str]:
    """Choose the items that fit under a title and a heading, and say in the title what is left out."""
    room = max((options.height or options.max_height) - 2, 0)
    shown = items[:room]
    return shown, title if len(shown) == len(items) else f"{title} ({len(shown)} of {len(items)})"


def _make_table(title: str, *columns: tuple[str, int | None]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, expand=True, padding=(0, 1, 0, 0)
    )
    for heading, width in columns:
        table.add_column(
            heading,
            width=width,
            ratio=None if width else 1,
            no_wrap=True,
            overflow="ellipsis",
            header_style="dim",
        )
    return table
