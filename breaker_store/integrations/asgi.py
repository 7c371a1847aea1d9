"""ASGI: a store that is open for as long as the application lives.

    app = FastAPI(lifespan=lifespan(database_url="postgresql://..."))    # Starlette likewise
    app = StoreLifespan(app, database_url="postgresql://...")            # any other application

Each request finds the store in its state, as `breaker_store`. The server's shutdown, by SIGTERM too, drains the store.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

from breaker_store.core.cleaning import clean_text
from breaker_store.errors import ConfigurationError
from breaker_store.store import BreakerStore

logger = logging.getLogger(__name__)

STATE_KEY: Final = "breaker_store"
"""Under what name a request's state has the store."""

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Lifespan: TypeAlias = "Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]"

_STARTED: Final = "lifespan.startup.complete"


def lifespan(
    own: Lifespan | None = None, **options: Any
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Make the `lifespan` of a FastAPI or Starlette application.

    Args:
        own: the application's own, which runs while the store is open, and finds it as `app.state.breaker_store`.
        options: those of `BreakerStore.open`.

    """

    @asynccontextmanager
    async def with_store(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with BreakerStore.open(**options) as store:
            setattr(app.state, STATE_KEY, store)
            if own is None:
                yield {STATE_KEY: store}
                return
            async with own(app) as state:
                yield {**(state or {}), STATE_KEY: store}

    return with_store


def store_of(scope: Mapping[str, Any]) -> BreakerStore:
    """Give the store that a request's scope has.

    Raises:
        ConfigurationError: it has none.

    """
    store = scope.get("state", {}).get(STATE_KEY)
    if not isinstance(store, BreakerStore):
        raise ConfigurationError(
            "no store is open for this application: give it the lifespan of breaker_store"
        )
    return store


class StoreLifespan:
    """Wraps an ASGI application so that a store is open while it lives.

    The application's own lifespan runs within, and finds the store in its scope's state.

    Args:
        app: the application; it needs no lifespan.
        options: those of `BreakerStore.open`.

    """

    def __init__(self, app: Application, **options: Any) -> None:
        self._app = app
        self._options = options
        self._store: BreakerStore | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        # Servers copy the lifespan's state to each request, if they know of it at all.
        scope.setdefault("state", {}).setdefault(STATE_KEY, self._store)
        await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = _InnerLifespan(await receive(), receive, send)
        try:
            async with BreakerStore.open(**self._options) as store:
                self._store = store
                scope.setdefault("state", {})[STATE_KEY] = store
                await inner.run(self._app, scope)
        except Exception as error:
            await send(inner.describe_failure(error))
            raise
        finally:
            self._store = None
        # Not before: the server ends the process when it has this.
        await send(inner.last_message)


class _InnerLifespan:
    """The lifespan of a wrapped application, whose last message is held back until the store is closed.

    Attributes:
        has_started: whether the server knows that the application has started.
        last_message: what the server is to hear in the end.

    """

    def __init__(self, startup: Message, receive: Receive, send: Send) -> None:
        self._startup: Message | None = startup
        self._receive_next = receive
        self._send_on = send
        self.has_started = False
        self.last_message: Message = {"type": "lifespan.shutdown.complete"}

    async def run(self, app: Application, scope: Scope) -> None:
        """Run it, or wait for the end in its place if the application has none, which it may say by any error."""
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            if self.has_started:
                raise
            logger.info(
                "the application has no lifespan, or does not say what is wrong with it", exc_info=True
            )
        if not self.has_started and not self._has_failed():
            await self._send({"type": _STARTED})
            await self._receive_next()

    def describe_failure(self, error: Exception) -> Message:
        """Make what the server is to hear of an error, unless the application has said it."""
        if self._has_failed():
            return self.last_message
        failed = "shutdown" if self.has_started else "startup"
        # Addresses of databases stand in such errors.
        text = clean_text(f"{type(error).__name__}: {error}")
        return {"type": f"lifespan.{failed}.failed", "message": text}

    def _has_failed(self) -> bool:
        return str(self.last_message["type"]).endswith(".failed")

    async def _receive(self) -> Message:
        startup, self._startup = self._startup, None
        return startup or await self._receive_next()

    async def _send(self, message: Message) -> None:
        if message["type"] != _STARTED:
            self.last_message = message
            return
        self.has_started = True
        await self._send_on(message)
