"""Contestants take turns in one run, and what counts is how they compare in the same turn: a busy machine slows all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)


class Bar(NamedTuple):
    """What is asked for, what was found, and whether that is enough."""

    asked: str
    found: str
    met: bool

    @classmethod
    def at_most(cls, asked: str, found: float, limit: float, unit: str = " x") -> Self:
        return cls(f"{asked}: at most {limit:g}{unit}", f"{found:.3g}{unit}", found <= limit)

    @classmethod
    def at_least(cls, asked: str, found: float, limit: float, unit: str = " x") -> Self:
        shown = f"{found:,.0f}" if found >= 100 else f"{found:.3g}"
        return cls(f"{asked}: at least {limit:,g}{unit}", f"{shown}{unit}", found >= limit)


@dataclass(frozen=True)
class Rounds:
    """What each contestant needed in each round, in any one unit."""

    figures: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])

    def ratio(self, name: str, other: str) -> float:
        """Divide one by the other round by round, and give the median."""
        return statistics.median(self.ratios(name, other))

    def ratios(self, name: str, other: str) -> list[float]:
        return [figure / against for figure, against in self._pairs(name, other)]

    def difference(self, name: str, other: str) -> float:
        """Take the other from the one round by round, and give the median."""
        return statistics.median(figure - against for figure, against in self._pairs(name, other))

    def _pairs(self, name: str, other: str) -> Iterator[tuple[float, float]]:
        return zip(self.figures[name], self.figures[other], strict=True)


def percentile(times: Sequence[int], percent: float) -> float:
    """Give what so many in a hundred do not exceed; not a number if there are none."""
    if not times:
        return math.nan
    return sorted(times)[min(int(len(times) * percent / 100), len(times) - 1)]


async def take_turns(contestants: Mapping[str, Callable[[], Awaitable[float]]], rounds: int) -> Rounds:
    """Let each do its round in turn, after one that does not count; who begins changes from round to round."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number, order in enumerate(_orders(list(contestants), rounds + 1)):
        for name in order:
            figure = await contestants[name]()
            if number > 0:
                figures[name].append(figure)
    return Rounds(figures)


def _orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    for number in range(rounds):
        first = number % len(names)
        yield names[first:] + names[:first]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def judge(bars: Sequence[Bar]) -> int:
    """Print the bars; give the exit status, 1 if one of them is missed."""
    for bar in bars:
        verdict = "[green]met   [/]" if bar.met else "[bold red]missed[/]"
        console.print(f"{verdict}  {bar.asked}  ({bar.found})")
    return 0 if all(bar.met for bar in bars) else 1
