"""The rules a breaker goes by, as a value that is stored with every decision made under it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from breaker_store.core.cleaning import is_storable

MICROSECONDS = 1_000_000
GREATEST_COUNT = 1_000_000
GREATEST_TIMEOUT_SECONDS = 10 * 365 * 86_400.0

ErrorName: TypeAlias = "type[BaseException] | str"


def error_name(error_type: type[BaseException]) -> str:
    """Name an exception class by its module and qualified name, a built-in one by its name alone."""
    if error_type.__module__ == "builtins":
        return error_type.__qualname__
    return f"{error_type.__module__}.{error_type.__qualname__}"


@dataclass(frozen=True, slots=True)
class Policy:
    """When a breaker opens, how long it waits, when it closes, and what counts as a failure.

    Attributes:
        failure_threshold: consecutive failures that open a closed breaker; 1 to 1,000,000.
        timeout_seconds: how long an open breaker refuses before one call may try, and how long a probe may keep its
            slot from the next caller; 0 lets the next call try at once; at most ten years. Keep it longer than a
            call takes: else callers take the slots from one another, and no probe ever counts.
        success_threshold: successful probes that close a half-open breaker; 1 to 1,000,000.
        half_open_max_calls: probes that may run at once; 1 to 1,000,000.
        counted_errors: exception classes, or their dotted names, that are failures; None means every `Exception`.
        ignored_errors: those that are not, though they are among the counted ones: the service did answer, so the
            call is recorded as a success that carries the error. A bad request is the usual case.

    Classes are kept as names, so that a policy can be stored and read where the class can't be imported. A class
    matches by any name in its method resolution order, so naming a parent covers its children.

    Raises:
        ValueError: a number is out of its bounds, or a name has characters that no name has.
        TypeError: a count is no int, or an error is neither a class nor a text.

    """

    failure_threshold: int = 5
    timeout_seconds: float = 60.0
    success_threshold: int = 2
    half_open_max_calls: int = 1
    counted_errors: tuple[ErrorName, ...] | None = None
    ignored_errors: tuple[ErrorName, ...] = ()

    def __post_init__(self) -> None:
        for field in ("failure_threshold", "success_threshold", "half_open_max_calls"):
            _check_count(field, getattr(self, field))
        object.__setattr__(self, "timeout_seconds", _checked_timeout(self.timeout_seconds))
        if self.counted_errors is not None:
            object.__setattr__(self, "counted_errors", _names(self.counted_errors))
        object.__setattr__(self, "ignored_errors", _names(self.ignored_errors))

    @property
    def timeout_us(self) -> int:
        return round(self.timeout_seconds * MICROSECONDS)

    def counts_as_failure(self, error: Exception) -> bool:
        names = {
            error_name(ancestor) for ancestor in type(error).__mro__ if issubclass(ancestor, BaseException)
        }
        if not names.isdisjoint(self.ignored_errors):
            return False
        return self.counted_errors is None or not names.isdisjoint(self.counted_errors)

    def to_document(self) -> dict[str, Any]:
        """Give the policy as plain JSON values, for storage."""
        return {
            "failure_threshold": self.failure_threshold,
            "timeout_seconds": self.timeout_seconds,
            "success_threshold": self.success_threshold,
            "half_open_max_calls": self.half_open_max_calls,
            "counted_errors": None if self.counted_errors is None else list(self.counted_errors),
            "ignored_errors": list(self.ignored_errors),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Policy:
        """Read what `to_document` gave; keys that a newer version added are passed over."""
        known = {key: document[key] for key in cls.__dataclass_fields__ if key in document}
        return cls(**known)


def _check_count(field: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} must be an int, not {value!r}")
    if not 1 <= value <= GREATEST_COUNT:
        raise ValueError(f"{field} must be between 1 and {GREATEST_COUNT:,}, not {value}")


def _checked_timeout(value: float) -> float:
    if not 0 <= value <= GREATEST_TIMEOUT_SECONDS:
        raise ValueError(
            f"timeout_seconds must be between 0 and {GREATEST_TIMEOUT_SECONDS:,.0f}, not {value}"
        )
    return float(value) + 0.0  # without the sign of a zero, which a stored document would lose


def _names(errors: Iterable[ErrorName]) -> tuple[str, ...]:
    if isinstance(errors, str):
        raise TypeError(f"a collection of exceptions is needed, not the text {errors!r}")
    return tuple(_name(error) for error in errors)


def _name(error: object) -> str:
    if isinstance(error, type) and issubclass(error, BaseException):
        return error_name(error)
    if isinstance(error, str):
        if not is_storable(error):
            raise ValueError(f"an exception's name has no such characters: {error!r}")
        return error
    raise TypeError(f"an exception class or its dotted name is needed, not {error!r}")
