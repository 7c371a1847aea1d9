"""What requests are made of: whose breaker, when, which kinds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Path
from pydantic import BeforeValidator, WithJsonSchema

from breaker_store.core.events import BIGINTS, Kind
from breaker_store.postgres.history import STORED_KINDS

_KINDS: Final = {kind.label: kind for kind in STORED_KINDS}
_TRANSITION_KINDS: Final = {label: kind for label, kind in _KINDS.items() if not kind.is_outcome}

_INTEGER: Final = re.compile("0|-?[1-9][0-9]{0,18}")


def read_integer(text: object, what: str) -> int:
    # Pydantic alone would take "1_0", "010" and "10.0" for 10, and there would be many addresses of one breaker.
    if not _INTEGER.fullmatch(str(text)) or int(str(text)) not in BIGINTS:
        raise ValueError(f"{what} is a whole number that fits in signed 64 bits")
    return int(str(text))


def _user_id(text: object) -> int:
    return read_integer(text, "a user id")


def _instant(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ValueError("a time is written as in 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset: Z, or +01:00 (+ is written %2B in an address)")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time is between the years 1 and 9999") from error


def _kind(label: object) -> Kind:
    return _known(label, _KINDS)


def _transition_kind(label: object) -> Kind:
    return _known(label, _TRANSITION_KINDS)


def _known(label: object, kinds: Mapping[str, Kind]) -> Kind:
    kind = kinds.get(str(label))
    if kind is None:
        raise ValueError(f"the kinds are {', '.join(kinds)}")
    return kind


UserId = Annotated[
    int,
    BeforeValidator(_user_id),
    WithJsonSchema({"type": "integer", "format": "int64"}),
    Path(description="Whose breaker."),
]
Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
KindName = Annotated[Kind, BeforeValidator(_kind), WithJsonSchema({"type": "string", "enum": list(_KINDS)})]
TransitionKindName = Annotated[
    Kind,
    BeforeValidator(_transition_kind),
    WithJsonSchema({"type": "string", "enum": list(_TRANSITION_KINDS)}),
]
