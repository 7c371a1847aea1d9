"""The options that narrow lists and histories, as they are typed, and what is said of a list that they leave."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypeAlias

import typer

from breaker_store.cli.ending import say
from breaker_store.cli.times import read_time
from breaker_store.core.events import Kind

KINDS: Final = {kind.label: kind for kind in Kind if kind is not Kind.UNRECOGNIZED}


TRANSITION_KINDS: Final = {label: kind for label, kind in KINDS.items() if not kind.is_outcome}

LARGEST_LIST: Final = 100_000
"""How many lines a list that is read at once has at most."""


def read_kind(text: str) -> Kind:
    return _read_kind(text, KINDS)


def read_transition_kind(text: str) -> Kind:
    return _read_kind(text, TRANSITION_KINDS)


def _read_kind(text: str, kinds: Mapping[str, Kind]) -> Kind:
    if text not in kinds:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(kinds)}")
    return kinds[text]


def check_order(since: datetime | None, until: datetime | None) -> None:
    """Refuse a time that ends before it begins: nothing would be found, and nobody told why."""
    if since is not None and until is not None and since > until:
        raise typer.BadParameter("--since is after --until")


def say_how_many(number: int, one: str, *, more: bool) -> None:
    """Say, beside a list, that there is nothing like that, or that there is more of it."""
    if more:
        say(f"there are more: these are the first {number:,}")
    elif number == 0:
        say(f"no {one} is like that")


Since: TypeAlias = Annotated[
    datetime | None,
    typer.Option(parser=read_time, metavar="TIME", help="From this time on; ISO 8601, UTC unless it says."),
]
Until: TypeAlias = Annotated[
    datetime | None, typer.Option(parser=read_time, metavar="TIME", help="Before this time.")
]
Kinds: TypeAlias = Annotated[
    list[Kind] | None,
    typer.Option("--kind", parser=read_kind, metavar="KIND", help="Only this kind; may be repeated."),
]
TransitionKinds: TypeAlias = Annotated[
    list[Kind] | None,
    typer.Option(
        "--kind", parser=read_transition_kind, metavar="KIND", help="Only this kind; may be repeated."
    ),
]
ListLimit: TypeAlias = Annotated[int, typer.Option(min=1, max=LARGEST_LIST, help="How many at most.")]
AsJsonLines: TypeAlias = Annotated[bool, typer.Option("--json", help="As lines of JSON.")]
