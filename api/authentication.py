"""Who asks: told by an access token, or by whatever a user of this package puts in its place.

The tokens in force are kept in memory, so that a request costs no question to the database: they are read again after
`CACHE_SECONDS`, by the first request that comes then. For so long at most a token that was revoked is taken, and one that
was just made is not. When the database can't be asked, nobody is let in on what was known before.

As long as no token was ever made, whoever is on the same machine is an operator, and nobody else is anybody.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Final, TypeAlias

from fastapi import HTTPException, Request
from starlette.datastructures import Headers

from breaker_store.api.web_pages import LOOPBACK_RULE, is_loopback, names_loopback
from breaker_store.core.access import AccessToken, Principal, Role, find_token
from breaker_store.errors import StoreError
from breaker_store.postgres.access_tokens import TokensInForce

__all__ = ["CHALLENGE", "Authenticate", "Principal", "Role", "TokenSignIn", "read_bearer", "read_token"]

logger = logging.getLogger(__name__)

CACHE_SECONDS: Final = 2.0
USE_NOTED_SECONDS: Final = 60.0
NOTE_AGAIN_SECONDS: Final = 5.0
CLOSING_SECONDS: Final = 1.0

_SCHEME: Final = "bearer"
_PASSWORD_SCHEME: Final = "basic"  # noqa: S105 - a name

CHALLENGE: Final = 'Bearer, Basic realm="access token as password", charset="UTF-8"'
"""How an access token may be sent. Programs take the first way; a browser knows the second, and asks for a password."""

# What proxies add: who is behind one is not on this machine.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

Authenticate: TypeAlias = Callable[[Request], Awaitable[Principal | None]]
"""Tells who asks; None for somebody who is not known. It may raise an HTTPException, such as 403, with another answer."""


class TokenSignIn:
    """Knows who asks by the access tokens of a database.

    Args:
        read: asks for the tokens in force.
        note_use: writes down that tokens were used; called about once a minute for each, and never waited for.
        monotonic: seconds that never run backwards.

    """

    def __init__(
        self,
        read: Callable[[], Awaitable[TokensInForce]],
        note_use: Callable[[Collection[str]], Awaitable[None]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._note_use = note_use
        self._monotonic = monotonic
        self._known = TokensInForce({}, any_made=True)
        self._known_at = -math.inf
        self._is_away = False
        self._reading: asyncio.Task[None] | None = None
        self._noted_at: dict[str, float] = {}
        self._unnoted: set[str] = set()
        self._noting: asyncio.Task[None] | None = None

    async def authenticate(self, request: Request) -> Principal | None:
        """Tell who asks; None for a token that is none, is not known, was revoked, or has expired.

        Raises:
            HTTPException: 403, for a page in a browser that reached the loopback address by another name.
            StoreError: the database can't be asked, so nobody is known.

        """
        await self._refresh()
        if not self._known.any_made:
            return _know_neighbour(request)
        token = find_token(self._known.by_id, read_token(request.headers) or "")
        if token is None or self._has_expired(token):
            return None
        self._take_note(token.public_id)
        return token.principal

    async def close(self) -> None:
        """Finish what was begun, unless the database is too slow for that."""
        tasks = {task for task in (self._reading, self._noting) if task is not None}
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _has_expired(self, token: AccessToken) -> bool:
        left = token.seconds_left
        return left is not None and self._monotonic() - self._known_at >= left

    async def _refresh(self) -> None:
        if self._monotonic() - self._known_at < CACHE_SECONDS:
            return
        # All who come meanwhile wait for the same reading, however long a database that hangs makes it.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_anew(), name="reading of access tokens")
        await asyncio.shield(self._reading)

    async def _read_anew(self) -> None:
        # The time before the question: what it tells may be as old.
        at = self._monotonic()
        try:
            self._known = await self._read()
        except StoreError as error:
            # Once, and not for each of those who come: they may be anybody.
            if not self._is_away:
                logger.warning("the access tokens can't be read, so nobody is let in: %s", error)
            self._is_away = True
            raise
        self._known_at, self._is_away = at, False
        self._noted_at = {key: noted for key, noted in self._noted_at.items() if key in self._known.by_id}

    def _take_note(self, public_id: str) -> None:
        now = self._monotonic()
        if now - self._noted_at.get(public_id, -math.inf) < USE_NOTED_SECONDS:
            return
        self._noted_at[public_id] = now
        self._unnoted.add(public_id)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._write_notes(), name="last use of access tokens")

    async def _write_notes(self) -> None:
        while self._unnoted:
            used, self._unnoted = self._unnoted, set()
            try:
                await self._note_use(used)
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                # The next use is noted again; but not each, since that would be a connection for every request.
                again = self._monotonic() - USE_NOTED_SECONDS + NOTE_AGAIN_SECONDS
                self._noted_at |= dict.fromkeys(used, again)
                logger.warning("the last use of access tokens can't be noted: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _know_neighbour(request: Request) -> Principal | None:
    """Take whoever is on this machine for an operator, unless it is a page that a browser was led to."""
    headers = request.headers
    if not is_loopback(request.scope.get("server")) or any(name in headers for name in _FORWARDED):
        return None
    if not names_loopback(headers.get("host")):
        raise HTTPException(HTTPStatus.FORBIDDEN, LOOPBACK_RULE)
    address = request.client.host if request.client else "this machine"
    return Principal(f"admin API, from {address}", Role.OPERATOR)


def read_token(headers: Headers) -> str | None:
    """Give the token that a request brings: as a bearer token, or as the password for which a browser asks a person."""
    values = headers.getlist("authorization")
    scheme, _, encoded = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != _PASSWORD_SCHEME:
        return read_bearer(headers)
    try:
        return b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return None


def read_bearer(headers: Headers) -> str | None:
    """Give what a request's one Authorization header has as a bearer token; None if there is none, or several."""
    values = headers.getlist("authorization")
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == _SCHEME else None
