"""Bots of users: breaker, rate limits and retries around each call."""

from __future__ import annotations

from breaker_store.bots.budget import RetryBudget
from breaker_store.bots.credentials import Secret, UserBotCredentials
from breaker_store.bots.fleet import BotFleet
from breaker_store.bots.instance import UserBotInstance
from breaker_store.bots.limits import TELEGRAM_CHATS, ChatRates
from breaker_store.bots.retrying import NO_RETRIES, RetryPolicy
from breaker_store.bots.watching import BotHealth
from breaker_store.errors import RateLimitedError

__all__ = [
    "NO_RETRIES",
    "TELEGRAM_CHATS",
    "BotFleet",
    "BotHealth",
    "ChatRates",
    "RateLimitedError",
    "RetryBudget",
    "RetryPolicy",
    "Secret",
    "UserBotCredentials",
    "UserBotInstance",
]
