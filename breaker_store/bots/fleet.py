"""All bots of a process, and what they share."""

from __future__ import annotations

from collections.abc import Iterator

from breaker_store.bots.budget import RetryBudget
from breaker_store.bots.credentials import UserBotCredentials
from breaker_store.bots.instance import UserBotInstance
from breaker_store.bots.limits import TELEGRAM_CHATS, ChatRates, rate_limiter
from breaker_store.bots.retrying import RetryPolicy
from breaker_store.core.failures import FailureTable
from breaker_store.failures import KNOWN_CLIENTS
from breaker_store.runtime.registry import CircuitBreakerRegistry


class BotFleet:
    """The bots of a process by user id, with their common rate and retry budget. It is for one event loop.

    Args:
        registry: whose breakers they use; a store's keeps what becomes of them.
        requests_per_second: of all bots together, over 0; None for no limit.
        chats: how fast messages may go to one chat; None for no limit.
        retries: when a call is tried again; `NO_RETRIES` for never.
        budget: how many retries there may be in all; None for one with its defaults.
        failures: what errors mean; the default knows aiogram, python-telegram-bot, httpx, aiohttp and requests.

    """

    def __init__(  # noqa: PLR0913 - all but the first are optional, and named
        self,
        registry: CircuitBreakerRegistry,
        *,
        requests_per_second: float | None = None,
        chats: ChatRates | None = TELEGRAM_CHATS,
        retries: RetryPolicy | None = None,
        budget: RetryBudget | None = None,
        failures: FailureTable = KNOWN_CLIENTS,
    ) -> None:
        if requests_per_second is not None and not requests_per_second > 0:
            raise ValueError(f"requests_per_second is over 0, or None, not {requests_per_second!r}")
        self.registry = registry
        self.monotonic_ns = registry.surroundings.monotonic_ns
        self.limiter = None if requests_per_second is None else rate_limiter(requests_per_second, 1)
        self.chats = chats
        self.retries = retries or RetryPolicy()
        self.budget = budget or RetryBudget(self.monotonic_ns)
        self.failures = failures
        self._instances: dict[int, UserBotInstance] = {}

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[UserBotInstance]:
        return iter(self._instances.values())

    def get_instance(self, credentials: UserBotCredentials) -> UserBotInstance:
        """Give a user's bot; other credentials than before make a new one.

        It has the same breaker and health, waits as long as the service asked the one before it, and, if these stay
        as they are, shares its rate and concurrency.
        """
        instance = self._instances.get(credentials.user_id)
        if instance is None or instance.credentials != credentials:
            instance = self._instances[credentials.user_id] = UserBotInstance(credentials, self, instance)
        return instance

    def find_instance(self, user_id: int) -> UserBotInstance | None:
        """Give a user's bot if there is one."""
        return self._instances.get(user_id)

    def remove_instance(self, user_id: int) -> None:
        """Forget a user's bot; its breaker stays. Calls that are under way end as they would."""
        self._instances.pop(user_id, None)
