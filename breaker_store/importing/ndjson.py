"""Newline-delimited JSON: one object a line.

For instance::

    {"user_id": 101, "at": "2024-05-01T12:00:00.25Z", "outcome": "failure", "duration_ms": 31.5, "error_type": "Timeout"}

Which keys there are, and what they may hold, stands in `_read_...` below; other keys are ignored. A key that comes
twice makes the line a bad one: which of the two is meant would be a guess.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any, NoReturn

from breaker_store.importing.formats import ImportedOutcome, check_time, count_microseconds

_BIGINT_LIMIT = 1 << 63
_SUCCEEDED = {"success": True, "failure": False}

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NdjsonFormat:
    """Parses a line that is a JSON object."""

    @property
    def format_name(self) -> str:
        return "ndjson"

    @property
    def closing(self) -> bytes:
        return b"}"

    def __call__(self, line: bytes, identity: bytes) -> ImportedOutcome:
        fields = _decode_object(line)
        return ImportedOutcome(
            _read_user_id(fields),
            _read_time(fields),
            _read_outcome(fields),
            _read_duration(fields),
            _read_text(fields, "operation"),
            _read_text(fields, "error_type"),
            _read_text(fields, "error_message"),
            identity,
        )


def _decode_object(line: bytes) -> Fields:
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as problem:
        raise ValueError(f"the line is not UTF-8 (byte {problem.start + 1})") from None
    except json.JSONDecodeError as problem:
        raise ValueError(f"the line is not JSON: {problem.msg} (character {problem.pos + 1})") from None
    except RecursionError:
        raise ValueError("the line's JSON is nested too deeply") from None
    except ArithmeticError:
        raise ValueError("a number's exponent is too large") from None
    if not isinstance(value, dict):
        raise ValueError("the line is JSON, but not an object")  # noqa: TRY004 (the line's fault, not a programmer's)
    return value


def _read_user_id(fields: Fields) -> int:
    """Read a whole number of signed 64 bits."""
    user_id = _require(fields, "user_id")
    # `type`, since a bool is an int to isinstance.
    if type(user_id) is not int or not -_BIGINT_LIMIT <= user_id < _BIGINT_LIMIT:
        raise ValueError("user_id must be a whole number of signed 64 bits")
    return user_id


def _read_time(fields: Fields) -> int:
    """Read ISO 8601 text with its offset from UTC, or a number of seconds since the Unix epoch.

    What is finer than a microsecond is cut off.
    """
    at = _require(fields, "at")
    if isinstance(at, str):
        return _read_time_text(at)
    seconds = _expect_number(at, "at must be ISO 8601 text, or a number of seconds since the Unix epoch")
    # The bound goes first: as a whole number, 1e999999 would be a million digits.
    return check_time(_scale(seconds, 6) if 0 <= seconds < _BIGINT_LIMIT // 10**6 else -1)


def _read_time_text(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("at is not a time in ISO 8601") from None
    if moment.tzinfo is None:
        raise ValueError("at has no offset from UTC: write Z or an offset like +02:00 after the time")
    return check_time(count_microseconds(moment))


def _read_outcome(fields: Fields) -> bool:
    outcome = _require(fields, "outcome")
    succeeded = _SUCCEEDED.get(outcome) if isinstance(outcome, str) else None
    if succeeded is None:
        raise ValueError('outcome must be "success" or "failure"')
    return succeeded


def _read_duration(fields: Fields) -> int | None:
    """Read milliseconds as microseconds; what is finer is cut off."""
    duration = fields.get("duration_ms")
    if duration is None:
        return None
    milliseconds = _expect_number(duration, "duration_ms must be a number")
    if not 0 <= milliseconds < _BIGINT_LIMIT // 10**3:
        raise ValueError("duration_ms must be from 0 up to 2**63 microseconds")
    return _scale(milliseconds, 3)


def _read_text(fields: Fields, key: str) -> str | None:
    text = fields.get(key)
    if text is None or isinstance(text, str):
        return text
    raise ValueError(f"{key} must be text or null")


def _require(fields: Fields, key: str) -> Any:
    value = fields.get(key)
    if value is None:
        raise ValueError(f"{key} is missing")
    return value


def _expect_number(value: object, reason: str) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if type(value) is int:
        return Decimal(value)
    raise ValueError(reason)


def _scale(number: Decimal, digits: int) -> int:
    """Multiply by a power of ten and round down; exact, for a number of at most 28 - `digits` whole digits."""
    cut = number.quantize(Decimal((0, (1,), -digits)), rounding=ROUND_FLOOR)
    return int(cut.scaleb(digits))


def _build_object(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key comes twice in an object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


_DECODER = json.JSONDecoder(
    # Decimal, since a float of Unix seconds is off by up to 0.1 microseconds, and so may be cut to the one before.
    parse_float=Decimal,
    parse_constant=_refuse_constant,
    object_pairs_hook=_build_object,
)
