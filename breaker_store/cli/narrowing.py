"""The options that narrow a history: times and kinds of events, as they are typed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, TypeAlias

import typer

from breaker_store.cli.times import read_time
from breaker_store.core.events import Kind

KINDS: Final = {kind.label: kind for kind in Kind if kind is not Kind.UNRECOGNIZED}


def read_kind(text: str) -> Kind:
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(KINDS)}")
    return KINDS[text]


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
AsJsonLines: TypeAlias = Annotated[bool, typer.Option("--json", help="As lines of JSON.")]
