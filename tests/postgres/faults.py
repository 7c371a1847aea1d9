"""Faults seeded through the import, each with its own times, so that what is told of them can be compared word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count

from breaker_store.importing.formats import ImportedOutcome
from breaker_store.importing.run import import_outcomes

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
# A night on which everything is over by now.
THREE_AM = int(datetime(2025, 11, 26, 3, tzinfo=UTC).timestamp()) * SECOND
USER = 101

Error = tuple[str | None, str | None]

REVOKED: Error = ("Unauthorized", "401: the token was revoked")
NETWORK: Error = ("NetworkError", "Cannot connect to host api.example.org:443")
SLOW: Error = ("TimeoutError", None)

_lines = count(1)


def call(user_id: int, at: int, error: Error | None = None) -> ImportedOutcome:
    """Make a call that took 31 ms; without an error it succeeded."""
    error_type, message = error or (None, None)
    line = next(_lines).to_bytes(16, "big")
    return ImportedOutcome(user_id, at, error is None, 31_000, "sendMessage", error_type, message, line)


def calls(
    user_id: int, at: int, errors: Sequence[Error | None], step: int = 800_000
) -> list[ImportedOutcome]:
    return [call(user_id, at + number * step, error) for number, error in enumerate(errors)]


def well(users: Iterable[int], at: int = THREE_AM - 6 * DAY) -> list[ImportedOutcome]:
    """Have each user's bot send something days before."""
    return [call(user_id, at) for user_id in users]


def outage(
    users: Iterable[int], error: Error = NETWORK, at: int = THREE_AM + 9 * SECOND
) -> list[ImportedOutcome]:
    """Trip each user's breaker, one a little after the other."""
    return [
        each
        for number, user_id in enumerate(users)
        for each in calls(user_id, at + number * 10_000, [error] * 5)
    ]


def recovery(users: Iterable[int], at: int = THREE_AM + 5 * MINUTE) -> list[ImportedOutcome]:
    """Have two probes of each succeed."""
    return [each for user_id in users for each in calls(user_id, at, [None, None])]


async def seed(database_url: str, *histories: Iterable[ImportedOutcome]) -> None:
    lines = sorted((line for history in histories for line in history), key=lambda line: line.at_us)
    await import_outcomes(database_url, lines, batch_size=20_000)


async def revoke_token(database_url: str, fleet: int = 50) -> None:
    """Revoke one user's token, in a fleet of bots that are well."""
    users = range(USER, USER + fleet)
    await seed(database_url, well(users), outage([USER], REVOKED), well(users[1:], at=THREE_AM + MINUTE))


async def take_provider_away(database_url: str, many: int = 2_000) -> None:
    await seed(database_url, well([USER, *range(1_000, 1_010)]), outage(range(USER, USER + many)))


async def slow_provider_down(database_url: str) -> None:
    """Have a provider time out for many, and be well again some minutes later."""
    users = range(USER, USER + 40)
    await seed(database_url, well([*users, 900]), outage(users, SLOW), recovery(users))


async def break_two_things(database_url: str, many: int = 2_000) -> None:
    """Revoke one user's token while the provider is away for many others."""
    users = range(1_000, 1_000 + many)
    await seed(
        database_url,
        well([USER, 900, 901]),
        outage(users),
        outage([USER], REVOKED, at=THREE_AM + MINUTE),
    )
