"""Every error that this package raises of its own accord.

A branch is what a caller can do about it, a leaf is what went wrong::

    BreakerStoreError
    ├── CircuitBreakerOpenError     wait, or do without the call
    │   └── BotSuspendedError       a person refuses this bot's calls, and says why
    ├── RateLimitedError            wait as long as the service asks, or do without the call
    ├── NotForcedOpenError          look at its state: there is nothing to release
    ├── SuspendedError              resume the bot first
    ├── NotSuspendedError           look at its state: there is nothing to resume
    ├── ConfigurationError          change a setting
    │   ├── NestedCallError         take away one of two guards of the same bot
    │   └── SpoolBusyError          another process has the spool's directory: give this one its own
    ├── DamagedInputError           mend the file (importing/formats.py)
    ├── EmbeddedPostgresError       its leaves say what to do (embedded/errors.py)
    └── StoreError                  the store's trouble, not the call's
        ├── LogUnavailableError     try again later
        ├── EventRefusedError       the event can't be stored as it is
        ├── LedgerError             stop and look: what is stored is not what was sent
        ├── NotCommittedError       the call has happened; whether its event is stored is not known
        ├── SpoolError              the local disk refuses: free some room, or look at the directory
        ├── UnknownBreakerError     no event of this user is stored
        ├── UnknownTransitionError  look for its id in the user's history (postgres/explaining.py)
        ├── HorizonError            ask for a later time: the log does not go back so far (postgres/horizon.py)
        ├── FutureError             ask for a time that has been (postgres/horizon.py)
        ├── HistoryRangeError       ask for less time, or for longer parts (postgres/health_history.py)
        ├── SchemaError             `breaker-store migrate up`, or update this package
        │   ├── NotMigratedError
        │   ├── SchemaBehindError
        │   └── SchemaTooNewError
        ├── MigrationBusyError      try again later
        ├── MaintenanceBusyError    wait for the other process (retention.py)
        ├── CursorError             ask for the page with the cursor that was given (postgres/cursors.py)
        │   └── FeedCursorError     go on behind an id that the feed gave (postgres/feed.py)
        ├── ContendedBreakerError   try again (control.py)
        ├── ChangedBreakerError     look at it anew, and decide again (control.py)
        ├── ExpiryError             say another end, or none (control.py)
        ├── NotStagedError          narrow the filter, or wait (postgres/staged_resets.py)
        └── UnknownStagedResetError look for it in the list (postgres/staged_resets.py)

What a wrapped call raises is never wrapped or replaced: it reaches the caller as it is.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Self

from breaker_store.core.events import EventId, Failure


class BreakerStoreError(Exception):
    """Something went wrong in breaker-store."""


class CircuitBreakerOpenError(BreakerStoreError):
    """The breaker refused the call; the function was not called.

    Attributes:
        user_id: whose breaker it is; None for a breaker that belongs to nobody.
        timeout_remaining: seconds until a call may try again; 0.0 when the breaker is half-open and its probes are
            still running; None when it stays open until somebody releases it.
        open_since: Unix time, in seconds, of the opening.
        opened_by: the id of the event that opened it, as it stands (or will stand) in the log.
        last_failure: the last failure that counted; None if somebody opened it by hand.

    """

    __slots__ = ("last_failure", "open_since", "opened_by", "timeout_remaining", "user_id")

    # The message is made when somebody reads it, and nothing is kept twice: most refusals are caught and counted.
    def __init__(
        self,
        user_id: int | None,
        timeout_remaining: float | None,
        open_since: float | None,
        opened_by: EventId | None,
        last_failure: Failure | None,
    ) -> None:
        self.user_id = user_id
        self.timeout_remaining = timeout_remaining
        self.open_since = open_since
        self.opened_by = opened_by
        self.last_failure = last_failure

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        facts = (self.user_id, self.timeout_remaining, self.open_since, self.opened_by, self.last_failure)
        return type(self), facts

    def __str__(self) -> str:
        return f"{self._subject()} is open{self._wait()}{self._cause()}"

    def _subject(self) -> str:
        return "circuit breaker" if self.user_id is None else f"circuit breaker of user {self.user_id}"

    def _wait(self) -> str:
        if self.timeout_remaining is None:
            return " until it is released"
        if self.timeout_remaining == 0.0:
            return " for others while a probe is running"
        return f" for another {self.timeout_remaining:.1f} s"

    def _cause(self) -> str:
        opened = f"; opened by event {self.opened_by}" if self.opened_by else ""
        return f"{opened}; last failure: {self.last_failure}" if self.last_failure else opened


class BotSuspendedError(CircuitBreakerOpenError):
    """The bot is suspended, so its call was refused; the function was not called.

    Attributes:
        reason: why, as who suspended it put it; None if they said nothing.
        actor: who suspended it; None if it is not known.
        suspended_since: Unix time, in seconds.

    """

    __slots__ = ("actor", "reason")

    def __init__(
        self,
        user_id: int | None,
        suspended_since: float | None,
        opened_by: EventId | None,
        actor: str | None,
        reason: str | None,
    ) -> None:
        super().__init__(user_id, None, suspended_since, opened_by, None)
        self.actor = actor
        self.reason = reason

    @property
    def suspended_since(self) -> float | None:
        return self.open_since

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.user_id, self.open_since, self.opened_by, self.actor, self.reason)

    def __str__(self) -> str:
        by = f" by {self.actor}" if self.actor else ""
        return f"{_bot(self.user_id)} is suspended{by}" + (f": {self.reason}" if self.reason else "")


class RateLimitedError(BreakerStoreError):
    """The service has asked this bot to wait longer than a call waits; the function was not called.

    Attributes:
        user_id: whose bot it is.
        retry_after: seconds until the service may be asked again.

    """

    def __init__(self, user_id: int, retry_after: float) -> None:
        super().__init__(user_id, retry_after)
        self.user_id = user_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the service asks user {self.user_id}'s bot to wait for another {self.retry_after:.1f} s"


class NotForcedOpenError(BreakerStoreError):
    """A breaker that is not forced open can't be released; nothing came of it.

    Attributes:
        user_id: whose breaker it is; None for a breaker that belongs to nobody.

    """

    def __init__(self, user_id: int | None) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        whose = "the breaker" if self.user_id is None else f"the breaker of user {self.user_id}"
        return f"{whose} is not forced open, so there is nothing to release: a reset closes it whatever its state"


class SuspendedError(BreakerStoreError):
    """A bot that is suspended can only be resumed; nothing came of it.

    Attributes:
        user_id: whose bot it is; None for a breaker that belongs to nobody.

    """

    def __init__(self, user_id: int | None) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        return f"{_bot(self.user_id)} is suspended: resume it first"


class NotSuspendedError(BreakerStoreError):
    """A bot that is not suspended can't be resumed; nothing came of it.

    Attributes:
        user_id: whose bot it is; None for a breaker that belongs to nobody.

    """

    def __init__(self, user_id: int | None) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        return f"{_bot(self.user_id)} is not suspended, so there is nothing to resume"


def _bot(user_id: int | None) -> str:
    return "the bot" if user_id is None else f"user {user_id}'s bot"


class ConfigurationError(BreakerStoreError):
    """A setting is missing or makes no sense."""


class NestedCallError(ConfigurationError):
    """A bot's call within another call of the same bot: its requests would count twice, and wait for one another.

    Attributes:
        user_id: whose bot it is.

    """

    def __init__(self, user_id: int | None) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        return (
            f"a call within a call of {_bot(self.user_id)}: let either the client's adapter or "
            "rate_limited_request go through it, not one around the other"
        )


class SpoolBusyError(ConfigurationError):
    """Another process has the spool's directory: each process needs one of its own.

    Attributes:
        directory: which.
        pid: of the process that has it; None if it has not said so yet.

    """

    def __init__(self, directory: Path, pid: int | None) -> None:
        super().__init__(directory, pid)
        self.directory = directory
        self.pid = pid

    def __str__(self) -> str:
        holder = "another process" if self.pid is None else f"the process {self.pid}"
        return f"the spool in {self.directory} belongs to {holder}: each process needs a directory of its own"


class StoreError(BreakerStoreError):
    """The event store could not do what was asked."""


class LogUnavailableError(StoreError):
    """The database can't be reached, or can't do it now."""


class EventRefusedError(StoreError):
    """The database refuses an event for what it contains."""


class LedgerError(StoreError):
    """The ledger of batches contradicts what this writer sent: look before anything else is written."""


class NotCommittedError(StoreError):
    """A call was to return once its event is committed, and the store ended, or the event was not kept.

    The call itself has succeeded; what it gave is not lost. A call that failed raises its own error instead, with a
    note.

    Attributes:
        result: what the call gave; None for an `async with`.

    """

    def __init__(self, why: str, result: object = None) -> None:
        super().__init__(why)
        self.result = result


class SpoolError(StoreError):
    """The spool on local disk can't be written; nothing of the event is in it."""


class SchemaError(StoreError):
    """The database's schema is not the one that this code needs.

    Attributes:
        found: the database's revision; None if it was never migrated.
        needed: the revision that this code needs.

    """

    def __init__(self, found: str | None, needed: str, message: str) -> None:
        super().__init__(message)
        self.found = found
        self.needed = needed


class NotMigratedError(SchemaError):
    """The database holds none of our tables."""

    def __init__(self, needed: str) -> None:
        super().__init__(
            None,
            needed,
            f"the database was never migrated (needed: {needed}): run `breaker-store migrate up`",
        )


class SchemaBehindError(SchemaError):
    """The database's schema is older than this code needs."""

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(
            found,
            needed,
            f"the database is at revision {found}, this code needs {needed}: run `breaker-store migrate up`",
        )


class SchemaTooNewError(SchemaError):
    """The database's schema was made by a newer version of breaker-store than this one."""

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(
            found,
            needed,
            f"the database has a newer schema (revision {found}) than the code's ({needed}): update breaker-store",
        )


class MigrationBusyError(StoreError):
    """Another process was migrating the same database for longer than this one would wait.

    Attributes:
        waited_seconds: how long this one waited.

    """

    def __init__(self, waited_seconds: float) -> None:
        super().__init__(f"another process is migrating this database; gave up after {waited_seconds:g} s")
        self.waited_seconds = waited_seconds


class UnknownBreakerError(StoreError):
    """No event of this user is stored, so there is no breaker to speak of.

    Attributes:
        at: the instant that was asked for, up to which there is none; None for now.

    """

    def __init__(self, user_id: int, at: datetime | None = None) -> None:
        super().__init__(user_id, at)
        self.user_id = user_id
        self.at = at

    def __str__(self) -> str:
        known = f"no circuit breaker is known for user {self.user_id}"
        if self.at is None:
            return f"{known}: no event of this user is stored"
        return f"{known} at {iso_utc(self.at)}: no event of this user is stored up to then"


def iso_utc(at: datetime) -> str:
    """Write a time in UTC as ISO 8601 has it, with a Z."""
    return at.isoformat().replace("+00:00", "Z")
