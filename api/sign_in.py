"""The door: nothing but the health of the service is told to somebody who is not known, and a viewer only reads.

As middleware, so that it stands before all there is: the documentation, paths that lead nowhere, and what somebody adds
later; but for websockets, which it refuses. Who may do what follows from the method alone: reading is for everybody who is
known, all else for operators.

An answer that goes on, as a stream does, is looked at again before what it sends next, if the last look is `LOOK_AGAIN_SECONDS`
ago. A stream sends a heartbeat every 5 seconds, and tokens are remembered for 2; so it ends within 10 of when its token was
revoked or has expired. While the database is away nobody can be asked, and nothing new can come.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from fastapi import HTTPException, Request
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from breaker_store.api.authentication import CACHE_SECONDS, Authenticate, Principal, Role, read_token
from breaker_store.api.failed_attempts import FailedAttempts
from breaker_store.api.problems import answer_error, describe_status
from breaker_store.core.access import read_public_id
from breaker_store.errors import StoreError

LOOK_AGAIN_SECONDS: Final = CACHE_SECONDS

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})

# The same for whatever is wrong with what was sent: an attacker learns nothing of it.
_UNKNOWN: Final = "sign in with a valid bearer token"
_VIEWER: Final = "a viewer may read, and not act"

_READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    **describe_status(HTTPStatus.UNAUTHORIZED, "Nobody who is known asked"),
    **describe_status(HTTPStatus.FORBIDDEN, "A viewer wanted to act, or a foreign web page asked"),
}
"""How all operations behind the door are documented."""

_END: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


class RequireSignIn:
    """Answers with 401 whom nobody knows, and with 403 a viewer who wants to act.

    Args:
        app: what is behind the door.
        authenticate: tells who asks.
        failed_attempts: where it is counted when that is nobody.
        challenge: in which ways somebody may say who they are, as WWW-Authenticate has it.
        monotonic: seconds that never run backwards.

    """

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Authenticate,
        failed_attempts: FailedAttempts,
        challenge: str = "Bearer",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._failed_attempts = failed_attempts
        self._challenge = challenge
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # There are none. One that somebody adds would be an answer that nothing here looks at again.
            await WebSocketClose(WS_1008_POLICY_VIOLATION)(scope, receive, send)
            return
        if scope["type"] != "http" or _path_of(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            principal = await self._admit(request)
        except (HTTPException, StoreError) as error:
            answer = await answer_error(request, error)
            await answer(scope, receive, send)
            return
        request.state.principal = principal
        is_still_known = partial(self._is_still_known, request, principal)
        await self._app(scope, receive, _WatchedAnswer(send, is_still_known, self._monotonic))

    async def _admit(self, request: Request) -> Principal:
        principal = await self._authenticate(request)
        if principal is None:
            client = request.client.host if request.client else None
            await self._failed_attempts.take_in(client, read_public_id(read_token(request.headers) or ""))
            raise HTTPException(HTTPStatus.UNAUTHORIZED, _UNKNOWN, {"WWW-Authenticate": self._challenge})
        if principal.role is not Role.OPERATOR and request.method not in _READING_METHODS:
            raise HTTPException(HTTPStatus.FORBIDDEN, _VIEWER)
        return principal

    async def _is_still_known(self, request: Request, principal: Principal) -> bool:
        try:
            return await self._authenticate(request) == principal
        except HTTPException:
            return False
        except StoreError:
            # Nobody can be asked now; but nothing new can come either.
            return True


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class _WatchedAnswer:
    """Sends an answer, and ends one that goes on when its reader is no longer known."""

    def __init__(
        self, send: Send, is_still_known: Callable[[], Awaitable[bool]], monotonic: Callable[[], float]
    ) -> None:
        self._send = send
        self._is_still_known = is_still_known
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._ended = False

    async def __call__(self, message: Message) -> None:
        is_over = message.get("more_body", False) and self._is_due() and not await self._is_still_known()
        # While that was asked, another task may have sent the end.
        if not self._ended:
            self._ended = is_over
            # The server then tells the application that its reader is gone.
            await self._send(_END if is_over else message)

    def _is_due(self) -> bool:
        now = self._monotonic()
        if self._ended or now - self._looked_at < LOOK_AGAIN_SECONDS:
            return False
        self._looked_at = now
        return True
