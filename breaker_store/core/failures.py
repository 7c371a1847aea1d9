"""What an error of a client means: for its breaker, and for whoever would try again.

=============  ==========================  ==================  =======================  =============================
category       what it is                  for the breaker     for health               tried again
=============  ==========================  ==================  =======================  =============================
transient      the network, a time-out,    a failure           a failure                after a growing pause
               a server's own trouble
rate limited   calls come too fast         nothing             a call, "rate limited"   after the wait that was asked
declined       the caller's fault, or the  a success that      a success                never
               recipient's wish            carries the error
permanent      the bot itself is refused:  a failure, and it   a failure                never
               its token was revoked       opens at once
unknown        all else                    a failure           a failure                once
=============  ==========================  ==================  =======================  =============================

A table says which errors are which, by class or by HTTP status. It knows classes by their dotted names, so that it can
speak of a client that is not installed.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS, error_name


class Category(StrEnum):
    """What an error means; see the table of the module `breaker_store.core.failures`."""

    TRANSIENT = "transient"
    RATE_LIMITED = "rate_limited"
    DECLINED = "declined"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"

    @property
    def is_failure(self) -> bool:
        return self not in {Category.RATE_LIMITED, Category.DECLINED}


BY_STATUS: Final = "by_status"
"""Of an error that carries an HTTP status: what it means is what the status means."""

FIRST_ERROR_STATUS: Final = 400

Meaning: TypeAlias = "Category | Literal['by_status']"


class BadAnswer(Exception):  # noqa: N818 - no error to its client, which gives the answer as it is
    """An answer with an HTTP status that its client raises no error for.

    Adapters raise it inside a protected call, and give `answer` to the caller in the end.

    Attributes:
        status: of HTTP.
        headers: of the answer; a `Retry-After` is read from them.
        retry_after: seconds, if the body says so; None leaves it to the headers.
        description: what the body says of the reason, for the record; None if it says nothing.
        put_aside: called with the error before a guard pauses for another attempt, so that the answer holds no connection meanwhile, and
            can still be given to the caller; None where it holds none.

    """

    def __init__(  # noqa: PLR0913 - all but two are optional, and named
        self,
        answer: object,
        status: int,
        headers: Mapping[str, str] | None = None,
        *,
        retry_after: float | None = None,
        description: str | None = None,
        put_aside: Callable[[BadAnswer], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(status)
        self.answer = answer
        self.status = status
        self.headers = headers or {}
        self.retry_after = retry_after
        self.description = description
        self.put_aside = put_aside

    def __str__(self) -> str:
        phrase, description = _phrase(self.status), self.description or ""
        # Telegram's descriptions begin with the phrase themselves: "Forbidden: bot was blocked by the user".
        if description.startswith(phrase):
            return f"{self.status} {description}".rstrip()
        return f"{self.status} {phrase}" + (f": {description}" if description else "")


class ErrorReading(NamedTuple):
    """What a table makes of an error.

    error_type: by what name it is recorded; None for its class's.
    retry_after_seconds: how long the service asks to wait, from 0 to ten years; None if it doesn't say.
    """

    category: Category
    error_type: str | None = None
    retry_after_seconds: float | None = None


class FailureTable:
    """Which errors mean what.

    Args:
        meanings: by exception class or its dotted name, by HTTP status such as 404, or by its hundred, such as "5xx".
            The nearest class in the method resolution order decides, a status before its hundred. `BY_STATUS` for
            classes that carry a status: as `status`, `status_code` or `response.status_code`.

    What no entry speaks of is unknown. `table | {...}` gives a table in which some of it is changed.

    Raises:
        TypeError: a key is neither of these, or what it means is no category.
        ValueError: a number is no HTTP status.

    """

    __slots__ = ("_errors", "_statuses")

    def __init__(self, meanings: Mapping[Any, Meaning]) -> None:
        self._errors: dict[str, Meaning] = {}
        self._statuses: dict[int | str, Category] = {}
        for key, meaning in meanings.items():
            self._add(key, meaning)

    def _add(self, key: object, meaning: object) -> None:
        name = error_name(key) if isinstance(key, type) and issubclass(key, BaseException) else key
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise TypeError(f"an exception class, its dotted name or an HTTP status is needed, not {key!r}")
        is_status = isinstance(name, int) or re.fullmatch("[1-5]xx", name) is not None
        if isinstance(name, int) and not 100 <= name <= 599:
            raise ValueError(f"an HTTP status is between 100 and 599, unlike {name}")
        if not isinstance(meaning, Category) and (is_status or meaning != BY_STATUS):
            raise TypeError(f"{key!r} means a Category, not {meaning!r}")
        if is_status:
            self._statuses[name] = Category(meaning)
        else:
            self._errors[str(name)] = meaning if isinstance(meaning, Category) else BY_STATUS

    @property
    def meanings(self) -> Mapping[str | int, Meaning]:
        """What the table says, with each class by its name."""
        return MappingProxyType({**self._errors, **self._statuses})

    def __or__(self, changes: Mapping[Any, Meaning] | FailureTable) -> FailureTable:
        more = changes.meanings if isinstance(changes, FailureTable) else FailureTable(changes).meanings
        return FailureTable({**self.meanings, **more})

    def read(self, error: BaseException) -> ErrorReading:
        """Tell what an error means."""
        meaning = self._meaning(error)
        if meaning != BY_STATUS:
            return ErrorReading(Category(meaning), None, _retry_after(error))
        status = status_of(error)
        # Of an answer that says that all is well, something else is wrong: the class tells more of it.
        error_type = _name_of_status(status) if status is not None and status >= FIRST_ERROR_STATUS else None
        return ErrorReading(self.category_of_status(status), error_type, _retry_after(error))

    def category_of_status(self, status: int | None) -> Category:
        """Tell what an HTTP status means; one below 400 that no entry speaks of is unknown too."""
        if status is None:
            return Category.UNKNOWN
        hundred = self._statuses.get(f"{status // 100}xx", Category.UNKNOWN)
        return self._statuses.get(status, hundred)

    def _meaning(self, error: BaseException) -> Meaning:
        if isinstance(error, BadAnswer):
            return BY_STATUS
        names = (error_name(ancestor) for ancestor in type(error).__mro__ if ancestor is not object)
        return next((self._errors[name] for name in names if name in self._errors), Category.UNKNOWN)


EVERY_ERROR: Final = FailureTable({})
"""The table that knows no client: every error is unknown, and so a failure."""


def status_of(error: BaseException) -> int | None:
    """Read the HTTP status that an error carries; None if it carries none."""
    response = _attribute(error, "response")
    found = (
        _attribute(error, "status"),
        _attribute(error, "status_code"),
        _attribute(response, "status_code"),
        _attribute(response, "status"),
    )
    return next((status for status in found if isinstance(status, int)), None)


def _attribute(of: object, name: str) -> Any:
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001 - what an error's own code does must not take its place
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _name_of_status(status: int) -> str:
    """Name an error by its status, as `http.TooManyRequests`: the class of such errors is one for all."""
    words = re.findall("[A-Za-z]+", _phrase(status).replace("'", ""))
    return "http." + ("".join(word.capitalize() for word in words) or f"Status{status}")


def _retry_after(error: BaseException) -> float | None:
    """Read how long the service asks to wait: from the error itself, or from its headers."""
    told = _attribute(error, "retry_after")
    if isinstance(told, timedelta):
        told = told.total_seconds()
    if isinstance(told, int | float) and not isinstance(told, bool):
        return _bounded(told) if told == told else None  # noqa: PLR0124 - a NaN is no wait
    headers = _attribute(error, "headers") or _attribute(_attribute(error, "response"), "headers")
    return None if headers is None else _retry_after_of_headers(headers)


def _bounded(seconds: float) -> float:
    return float(max(0, min(seconds, GREATEST_TIMEOUT_SECONDS)))


def _retry_after_of_headers(headers: Any) -> float | None:
    """Read a `Retry-After`: seconds, or a date, which is taken against the answer's own (RFC 9110, 10.2.3)."""
    try:
        told, date = headers.get("Retry-After"), headers.get("Date")
        if told is None:
            return None
        if re.fullmatch(r"\s*\d{1,9}\s*", told):
            return _bounded(int(told))
        until, now = email.utils.parsedate_to_datetime(told), email.utils.parsedate_to_datetime(date)
        return _bounded((until - now).total_seconds())
    except (AttributeError, TypeError, ValueError):
        return None
