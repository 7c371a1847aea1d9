"""Attempts to sign in that failed: logged, and answered ever more slowly.

Only the answer to an attempt that failed waits, so that whoever has a valid token is not kept waiting by somebody
behind the same proxy. What is kept is bounded, whoever attacks: so many addresses (of IPv6 the network of 64 bits, which one
machine has to itself), so many answers that wait, so many lines a minute in the log.

By hand, since the libraries count what is *allowed*, and turn away all that comes from an address when it was too much;
and since the memory of `limits` has no bound: it keeps every address until its time is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from breaker_store.core.wording import shortened

logger = logging.getLogger(__name__)

FREE_FAILURES: Final = 5
"""Failures of an address that are answered at once."""

FIRST_DELAY_SECONDS: Final = 0.1
LONGEST_DELAY_SECONDS: Final = 3.0
FORGOTTEN_SECONDS: Final = 300.0
"""For how long an address must not fail to begin anew."""

ADDRESSES: Final = 1_000
WAITING_ANSWERS: Final = 100
"""So many answers wait; those beyond are given at once."""

LINES_A_MINUTE: Final = 10

_MINUTE: Final = 60.0
_ADDRESS_LIMIT: Final = 60


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: float


class FailedAttempts:
    """The failures of the last minutes.

    Args:
        monotonic: seconds that never run backwards.
        sleep: waits so many seconds.

    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()
        self._waiting = 0
        self._minute_began = -_MINUTE
        self._lines = 0
        self._unlogged = 0

    async def take_in(self, client: str | None, public_id: str | None) -> None:
        """Log a failure, and wait as long as its answer has to.

        Args:
            client: the address it came from, as far as it is known.
            public_id: of the token that was tried; None if it was no token.

        """
        self._log(client, public_id)
        delay = self._count(_network_of(client or ""))
        if delay == 0 or self._waiting >= WAITING_ANSWERS:
            return
        self._waiting += 1
        try:
            await self._sleep(delay)
        finally:
            self._waiting -= 1

    def _count(self, address: str) -> float:
        """Count a failure; give the seconds that its answer waits."""
        now = self._monotonic()
        known = self._by_address.pop(address, None)
        count = 1 if known is None or now - known.last_at >= FORGOTTEN_SECONDS else known.count + 1
        # Last of all, so that the first is the one that has been quiet for the longest.
        self._by_address[address] = _Failures(count, now)
        if len(self._by_address) > ADDRESSES:
            self._by_address.popitem(last=False)
        if count <= FREE_FAILURES:
            return 0.0
        doublings = min(count - FREE_FAILURES - 1, 10)
        return min(FIRST_DELAY_SECONDS * 2.0**doublings, LONGEST_DELAY_SECONDS)

    def _log(self, client: str | None, public_id: str | None) -> None:
        now = self._monotonic()
        if now - self._minute_began >= _MINUTE:
            if self._unlogged:
                logger.warning("%d more attempts to sign in failed, not told one by one", self._unlogged)
            self._minute_began, self._lines, self._unlogged = now, 0, 0
        if self._lines >= LINES_A_MINUTE:
            self._unlogged += 1
            return
        self._lines += 1
        address = "an unknown address" if client is None else shortened(client, _ADDRESS_LIMIT)
        what = "no token" if public_id is None else f"the token id {public_id}"
        logger.warning("an attempt to sign in failed: from %s, with %s", address, what)


def _network_of(client: str) -> str:
    """Give what one machine has to itself: an address, or a network of IPv6."""
    try:
        address = ip_address(client)
    except ValueError:
        return client[:_ADDRESS_LIMIT]
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)
