"""Events as lines for people: time, kind, what about it, id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text

from breaker_store.cli.times import to_milliseconds
from breaker_store.core.events import IMMATERIAL
from breaker_store.core.wording import counted, printable
from breaker_store.postgres.history import EventItem, TransitionItem

STYLES: Final = {
    "failure": "red",
    "opened": "bold red",
    "forced_open": "bold red",
    "suspended": "bold red",
    "rejected": "yellow",
    "half_opened": "bold yellow",
    "closed": "bold green",
    "reset": "bold green",
    "resumed": "bold green",
}
# The failures of these made nothing: they are counted on.
_CARRYING: Final = frozenset(kind.label for kind in IMMATERIAL)
_KIND_WIDTH = 14


def print_event(item: EventItem | TransitionItem, *, with_user: bool = False) -> None:
    """Print an event; `with_user` says whose, which a transition knows."""
    whose = [f"user {item.user_id}"] if with_user and isinstance(item, TransitionItem) else []
    line = Text.assemble(
        (to_milliseconds(item.at), "dim"),
        "  ",
        (item.kind.ljust(_KIND_WIDTH), STYLES.get(item.kind, "")),
        "  ".join((*whose, *map(printable, describe(item)), "")),
        (item.id, "dim"),
    )
    Console(markup=False, highlight=False, soft_wrap=True).print(line)


def describe(item: EventItem | TransitionItem) -> Iterator[str]:
    """Tell what there is to tell of an event, part by part."""
    if item.from_state is not None and item.from_state != item.to_state:
        yield f"{item.from_state} -> {item.to_state}"
    yield from _describe_transition(item) if isinstance(item, TransitionItem) else _describe_event(item)
    if item.reason:
        yield item.reason
    if item.actor:
        yield f"by {item.actor}"
    if item.remark:
        yield f"({item.remark})"


def _describe_transition(item: TransitionItem) -> Iterator[str]:
    if item.superseded:
        yield "(superseded: another process was first)"
    if item.causes and item.kind not in _CARRYING:
        last = item.causes[-1]
        error = ": ".join(filter(None, (last.error_type, last.error_message)))
        number = max(item.failure_count or 0, len(item.causes))
        yield f"after {counted(number, 'failure')}" + (f", the last: {error}" if error else "")


def _describe_event(item: EventItem) -> Iterator[str]:
    if item.verdict is not None and item.verdict != "counted":
        yield f"({item.verdict.replace('_', ' ')})"
    if item.operation:
        yield item.operation
    if item.attempt is not None:
        yield f"attempt {item.attempt}"
    if item.count is not None:
        # Refusals in a row: how long each took would say nothing.
        yield f"{item.count} call{'s' if item.count > 1 else ''}"
    elif item.duration_ms is not None:
        yield f"{item.duration_ms:.1f} ms"
    if item.error_type or item.error_message:
        yield ": ".join(filter(None, (item.error_type, item.error_message)))
    if item.trace_id is not None:
        yield f"trace {item.trace_id.hex}"
