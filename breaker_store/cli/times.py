"""Times as they are given on the command line, and as JSON has them."""

from __future__ import annotations

from datetime import UTC, datetime

import typer


def read_time(text: str) -> datetime:
    """Read a time in ISO 8601; one without an offset is in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is not a time in ISO 8601, such as 2024-05-01T12:00:00Z"
        ) from None


def plain(value: object) -> str:
    """Write what JSON has no type for: times in UTC, and ids."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def to_milliseconds(at: datetime) -> str:
    """Write a time in UTC for people."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1_000:03d}Z"
