"""A store for programs without an event loop of their own: its loop runs in a thread.

    with open_in_thread(database_url=...) as store:
        store.registry.get_breaker(101).call_sync(requests.post, url, json=message)

Signals belong to the main thread, so they end the `with` there: Ctrl-C as it always does, and SIGTERM, where nobody else
handles it, by a `SystemExit`, after which the store is closed and the process ends by the signal. One that comes while the
store is being closed lets that go on; a second one, of either, does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import TypedDict, Unpack

import anyio
from anyio.from_thread import BlockingPortal

from breaker_store.core.failures import FailureTable
from breaker_store.core.policy import Policy
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.runtime.termination import ctrl_c_waits, exit_at_sigterm
from breaker_store.settings import Durability
from breaker_store.store import BreakerStore


class StoreOptions(TypedDict, total=False):
    """The options of `BreakerStore.open`, but for the one that is about signals."""

    database_url: str | None
    data_dir: str | os.PathLike[str] | None
    spool_dir: str | os.PathLike[str] | None
    spool_limit_bytes: int
    durability: Durability | str
    registry: CircuitBreakerRegistry | None
    policy: Policy | None
    failures: FailureTable | None
    queue_limit: int
    drain_seconds: float


@contextmanager
def open_in_thread(**options: Unpack[StoreOptions]) -> Iterator[BreakerStore]:
    """Open a store for the length of a `with`, with its event loop in a thread; see `BreakerStore.open`.

    Calls go through it by `call_sync`, from any number of threads; those that go on after the `with` are in memory only.
    `flush_sync` waits until what happened is stored. A forked child leaves the store to its parent.

    Raises:
        ConfigurationError, SchemaError, LogUnavailableError: as `BreakerStore.open` does.

    """
    opened_by = os.getpid()
    with exit_at_sigterm() as closing, ExitStack() as stack:
        portal = stack.enter_context(_loop_in_a_thread())
        store = stack.enter_context(
            portal.wrap_async_context_manager(BreakerStore.open(**options, drain_on_sigterm=False))
        )
        was_interrupted = False
        try:
            yield store
        except KeyboardInterrupt:
            was_interrupted = True
            raise
        finally:
            closing()
            if os.getpid() != opened_by:
                stack.pop_all()
            with ctrl_c_waits(is_second=was_interrupted):
                stack.close()


@contextmanager
def _loop_in_a_thread() -> Iterator[BlockingPortal]:
    """Do what anyio's `start_blocking_portal` does, but let a forked child go: there, that would wait for ever.

    What still runs at the end is cancelled: it is the opening of a store that was interrupted.
    """
    started: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    thread = threading.Thread(target=_run, args=(serve, started), name="breaker-store", daemon=True)
    started_by = os.getpid()
    thread.start()
    portal = started.result()
    try:
        yield portal
    finally:
        if os.getpid() == started_by:
            portal.call(portal.stop, True)
            thread.join()


def _run(serve: Callable[[], Awaitable[None]], started: Future[BlockingPortal]) -> None:
    try:
        anyio.run(serve)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
