"""Where a page ended, as a text that is handed back for the next one.

A page ends at an event, or at a place in a sort order, not after a number of rows: what is added in between shifts nothing.
The text is opaque and safe in an address; nothing but what was given out is taken back.
"""

from __future__ import annotations

import base64
import binascii

from breaker_store.core.events import BIGINTS
from breaker_store.errors import StoreError


class CursorError(StoreError):
    """The cursor is none of ours: cursors come from the page before, and are handed back as they are."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


def write_optional(cursor: object | None) -> str | None:
    """Write a page's next cursor, of whatever list; None stays None."""
    return None if cursor is None else str(cursor)


def write_cursor(kind: str, *numbers: int | None) -> str:
    """Write numbers down; `kind` says of which list they are, so that another list's are refused."""
    text = ".".join((kind, *("" if number is None else str(number) for number in numbers)))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(kind: str, text: str, count: int) -> list[int | None]:
    """Read what `write_cursor` gave, of so many numbers.

    Raises:
        CursorError: it is anything else.

    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        _, *parts = decoded.split(".")
        numbers = [None if part == "" else int(part) for part in parts]
    except (ValueError, binascii.Error) as error:
        raise CursorError from error
    if len(numbers) != count or write_cursor(kind, *numbers) != text:
        raise CursorError
    if any(number is not None and number not in BIGINTS for number in numbers):
        raise CursorError
    return numbers
