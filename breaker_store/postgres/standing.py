"""How one breaker stands, with all that an operator needs to act on it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import EventId, Suspension, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.standing import StateVersion, describe_standing
from breaker_store.core.state import BreakerState
from breaker_store.errors import UnknownBreakerError
from breaker_store.ports import StoredBreaker
from breaker_store.postgres import loading
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.stored_events import read_transition
from breaker_store.runtime.told_state import StateDict, describe_state

_BY_ID = "SELECT * FROM breaker_transitions WHERE writer_id = $1 AND writer_seq = $2 AND user_id = $3"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a breaker stands, or stood.

    Attributes:
        state: in the words of `CircuitBreaker.get_state`.
        sentence: the same as one plain sentence; of one that is forced open or suspended also by whom, until when and
            why.
        version: what an action names that is to be safe from others' in between.
        forced: whether somebody opened it, by suspending the bot too.
        policy: the rules in force, as far as they are known without the program's default.

    """

    user_id: int
    state: StateDict
    sentence: str
    version: StateVersion
    forced: bool
    suspension: Suspension | None
    policy: Policy
    policy_is_own: bool


async def read_standing(connection: AsyncConnection, user_id: int) -> Standing:
    """Tell how a breaker stands now.

    Raises:
        UnknownBreakerError: nothing is stored of this user.

    """
    driver_connection = await driver_connection_of(connection)
    stored = await loading.read_breaker(driver_connection, user_id, None)
    if stored is None:
        raise UnknownBreakerError(user_id)
    return describe(stored, await read_forced_opening(driver_connection, user_id, stored.state))


async def read_forced_opening(connection: Connection, user_id: int, state: BreakerState) -> Transition | None:
    """Give the transition by which a breaker is forced open; None if it isn't, or the bot is suspended."""
    if not state.forced or state.suspension is not None or state.opened_by is None:
        return None
    return await read_transition_of(connection, user_id, state.opened_by)


async def read_transition_of(connection: Connection, user_id: int, event_id: EventId) -> Transition | None:
    row = await connection.fetchrow(_BY_ID, *event_id, user_id)
    return None if row is None else read_transition(row).transition


def describe(stored: StoredBreaker, opening: Transition | None) -> Standing:
    """Describe a stored breaker; `opening` is the one by which it is forced open."""
    state = stored.state
    # As everywhere a wait is read: never more than the whole of it, whatever the clocks say.
    remaining_us = (
        None if stored.remaining_us is None else min(max(0, stored.remaining_us), state.longest_wait_us)
    )
    return Standing(
        user_id=stored.user_id,
        state=describe_state(state, remaining_us or 0),
        sentence=describe_standing(stored.user_id, state, remaining_us, opening),
        version=StateVersion.of(state),
        forced=state.forced,
        suspension=state.suspension,
        policy=state.policy,
        policy_is_own=state.policy_is_own,
    )
