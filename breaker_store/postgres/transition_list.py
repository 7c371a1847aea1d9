"""The transitions of all breakers: as a list, newest first, and in the order of their positions.

What was superseded is in neither: it means nothing for any breaker's state. A page of the list is read from one index,
by kind, actor, error or time alone, whatever else narrows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    RowMapping,
    Select,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import Kind
from breaker_store.postgres import tables
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.cursors import CursorError, read_cursor, write_cursor
from breaker_store.postgres.history import TransitionItem, read_transition_item
from breaker_store.postgres.queries import DEFAULT_PAGE, Page
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.remarks import Place, is_remarkable, read_remarks

_TRANSITIONS: Final = "transitions"


@dataclass(frozen=True, slots=True)
class TransitionCursor:
    """The transition that a page ended with."""

    at: datetime
    position: int

    def __str__(self) -> str:
        return write_cursor(_TRANSITIONS, microseconds(self.at), self.position)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` gave.

        Raises:
            CursorError: it is anything else.

        """
        at_us, position = read_cursor(_TRANSITIONS, text, 2)
        if at_us is None or position is None:
            raise CursorError
        try:
            return cls(to_datetime(at_us), position)
        except OverflowError as error:
            raise CursorError from error


@dataclass(frozen=True, slots=True)
class TransitionFilter:
    """Which transitions, and how many of them.

    Attributes:
        since, until: from the first on, up to the second but without it; None is no bound.
        kinds: None means all of them.
        error: the type of the last failure that led to it, as it is written; None is any or none.
        actor: who did it, as it is written; None is anybody or nobody.
        limit: how many a page holds, from 1.
        after: where the page before ended; None begins with the newest.

    """

    since: datetime | None = None
    until: datetime | None = None
    kinds: frozenset[Kind] | None = None
    error: str | None = None
    actor: str | None = None
    limit: int = DEFAULT_PAGE
    after: TransitionCursor | None = None


async def list_transitions(
    connection: AsyncConnection, wanted: TransitionFilter
) -> Page[TransitionItem, TransitionCursor]:
    """Give a page of all breakers' transitions, newest first."""
    rows = (await connection.execute(select_transitions(wanted))).mappings().all()
    items = rows[: wanted.limit]
    next_cursor = _cursor_at(items[-1]) if len(rows) > len(items) else None
    found = [read_transition_item(row) for row in items]
    places = [
        Place(row["user_id"], row["version"]) for row in items if is_remarkable(row["kind"], row["position"])
    ]
    remarks = await read_remarks(await driver_connection_of(connection), places)
    return Page(
        [replace(item, remark=remarks.get(Place(item.user_id, item.version or 0))) for item in found],
        next_cursor,
    )


_COLUMNS: Final = tables.transitions.c
# As the indexes have them: Postgres knows an expression by its very words.
_ACTOR: Final[ColumnElement[str]] = literal_column("(details ->> 'actor')")
_ACTOR_BEGINS: Final[ColumnElement[str]] = literal_column("left(details ->> 'actor', 200)")
_INDEXED_CHARACTERS: Final = 200
_ERROR: Final[ColumnElement[str]] = literal_column("(details #>> '{causes,-1,error_type}')")


def select_transitions(wanted: TransitionFilter) -> Select[Any]:
    statement = select(tables.transitions).where(_COLUMNS.position.is_not(None))
    if wanted.since is not None:
        statement = statement.where(_COLUMNS.occurred_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(_COLUMNS.occurred_at < wanted.until)
    if wanted.kinds is not None:
        statement = statement.where(_COLUMNS.kind.in_(sorted(map(int, wanted.kinds))))
    if wanted.error is not None:
        statement = statement.where(literal(wanted.error) == _ERROR)
    if wanted.actor is not None:
        # The index has the beginning alone: an entry has to fit into a third of a page.
        begins = literal(wanted.actor[:_INDEXED_CHARACTERS])
        statement = statement.where(begins == _ACTOR_BEGINS, literal(wanted.actor) == _ACTOR)
    if wanted.after is not None:
        place = tuple_(
            literal(wanted.after.at, DateTime(timezone=True)), literal(wanted.after.position, BigInteger)
        )
        statement = statement.where(tuple_(_COLUMNS.occurred_at, _COLUMNS.position) < place)
    newest_first = (_COLUMNS.occurred_at.desc(), _COLUMNS.position.desc())
    return statement.order_by(*newest_first).limit(wanted.limit + 1)


def _cursor_at(row: RowMapping) -> TransitionCursor:
    return TransitionCursor(row["occurred_at"], row["position"])
