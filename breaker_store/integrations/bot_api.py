"""What the adapters of Telegram's clients have in common."""

from __future__ import annotations

from typing import Final

STARTING_AND_POLLING: Final = frozenset(
    {"getMe", "getUpdates", "setWebhook", "deleteWebhook", "getWebhookInfo", "logOut", "close"}
)
"""The methods that pass by the breaker and its limits by default.

With them a bot is started and stopped: a process that starts anew while a breaker is open, or a bot suspended, would fail
otherwise, since clients ask for `getMe` first. Long polling takes 30 seconds when all is well, all of which it would hold
a permit, or a probe's slot; and it tells nothing of what is sent.
"""
