"""Who a bot is, and how fast it may go."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from typing import Any, Self

from breaker_store.core.cleaning import HIDDEN
from breaker_store.core.events import BIGINTS
from breaker_store.core.policy import Policy

GREATEST_CONCURRENCY = 100_000


class Secret:
    """A text that is not printed, not formatted and not pickled; `reveal` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret is not pickled: whoever needs it elsewhere reveals it")


@dataclass(frozen=True, slots=True)
class UserBotCredentials:
    """A user's bot.

    Attributes:
        token: what the bot signs in with; a text becomes a `Secret`.
        requests_per_second: of this bot, over 0; after a quiet while a quarter of them may go at once, but at least one.
            Telegram allows about 30.
        concurrency: how many of its requests may be under way at once, from 1.
        policy: rules of its own for its breaker, kept with its history; None leaves those that it has.

    Raises:
        TypeError, ValueError: the id is no 64-bit int, the token is no text or empty, or a number is out of bounds.

    """

    user_id: int
    token: Secret | str
    requests_per_second: float = 30.0
    concurrency: int = 30
    policy: Policy | None = None

    def __post_init__(self) -> None:
        # Texts name no value that may be the token: whoever mixed up two arguments has put it in another's place.
        if not isinstance(self.user_id, int) or isinstance(self.user_id, bool):
            raise TypeError(f"a user id is an int, not {type(self.user_id).__name__}")
        if self.user_id not in BIGINTS:
            raise ValueError(f"a user id fits in signed 64 bits, unlike {self.user_id}")
        if isinstance(self.token, str):
            object.__setattr__(self, "token", Secret(self.token))
        _check_token(self.token)
        if not (self.requests_per_second > 0 and math.isfinite(self.requests_per_second)):
            raise ValueError(f"requests_per_second must be over 0, not {self.requests_per_second!r}")
        if not isinstance(self.concurrency, int):
            raise TypeError(f"concurrency must be an int from 1, not {type(self.concurrency).__name__}")
        if not 1 <= self.concurrency <= GREATEST_CONCURRENCY:
            raise ValueError(
                f"concurrency must be from 1 to {GREATEST_CONCURRENCY:,}, not {self.concurrency}"
            )

    def reveal_token(self) -> str:
        """Give the token itself, for the client that signs in with it."""
        assert isinstance(self.token, Secret)  # noqa: S101 - made one above
        return self.token.reveal()


def _check_token(token: object) -> None:
    if not isinstance(token, Secret) or not isinstance(token.reveal(), str):
        raise TypeError("a token is a text")
    if not token.reveal():
        raise ValueError("a token is not empty")
