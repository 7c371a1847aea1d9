"""How times, spans, counts and foreign texts are put into a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = 1_000
_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def moment(time_us: int) -> str:
    """Write a time, to the second."""
    return f"{_EPOCH + timedelta(microseconds=time_us):%Y-%m-%d %H:%M:%S} UTC"


def hour_of_day(time_us: int) -> int:
    """Tell the hour in UTC, 0 to 23."""
    return time_us % _DAY // _HOUR


def span(length_us: int) -> str:
    """Write a span of time, cut to what a reader cares for: its two largest units."""
    if length_us < _SECOND:
        return f"{length_us // _MILLISECOND} ms"
    if length_us < _MINUTE:
        return f"{length_us // (_SECOND // 10) / 10:g} s"
    if length_us < _HOUR:
        return _two_units(length_us, _MINUTE, "min", _SECOND, "s")
    if length_us < _DAY:
        return _two_units(length_us, _HOUR, "h", _MINUTE, "min")
    return _two_units(length_us, _DAY, "day" if length_us < 2 * _DAY else "days", _HOUR, "h")


def _two_units(length_us: int, large_us: int, large: str, small_us: int, small: str) -> str:
    rest = length_us % large_us // small_us
    return f"{length_us // large_us} {large}" + (f" {rest} {small}" if rest else "")


def counted(number: int, one: str, several: str | None = None) -> str:
    """Write a number and what it counts."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def listed(texts: list[str]) -> str:
    """Join as in "a, b and c"; there is at least one."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def quoted(text: str, limit: int) -> str:
    """Quote a foreign text: printable, on one line, with at most `limit` characters of it."""
    return f'"{shortened(text, limit)}"'


def shortened(text: str, limit: int) -> str:
    """Make a foreign text printable, with at most `limit` characters of it."""
    return printable(text if len(text) <= limit else f"{text[: limit - 1]}…")


def printable(text: str) -> str:
    """Escape what would steer a terminal, or break a line."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def size(count: int) -> str:
    """Write a number of bytes, in units of a thousand as disks are sold."""
    if count < 1_000:
        return f"{count} bytes"
    number, unit = float(count), ""
    for unit in ("kB", "MB", "GB", "TB", "PB"):  # noqa: B007 - the last one stands
        number /= 1_000
        if number < 999.5:
            break
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"
