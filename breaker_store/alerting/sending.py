"""One message, posted once: signed as Standard Webhooks says, within bounds of time and of what is read of the answer.

https://www.standardwebhooks.com: the headers webhook-id, webhook-timestamp and webhook-signature.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook as Signer

from breaker_store.alerting.configuration import Webhook
from breaker_store.alerting.messages import Message
from breaker_store.alerting.wording import one_line

ATTEMPT_SECONDS: Final = 10.0
"""How long one posting may take in all."""

LONGEST_RETRY_AFTER_SECONDS: Final = 3_600.0
"""How long a receiver may have us wait at most."""

_LONGEST_WORD: Final = 8
"""What is no longer than this in an address is a word, such as `services` or `alerts`, and no secret."""

ANSWER_LIMIT_BYTES: Final = 1_000
"""How much of an answer is read."""

_PASSING: Final = {408, 425, 429}
_MISCONFIGURED: Final = {401, 403, 404, 405, 407, 410}
_HEADERS: Final = {"content-type": "application/json", "user-agent": "breaker-store"}


class Verdict(Enum):
    """What an answer means for the message."""

    DELIVERED = auto()
    AGAIN = auto()
    """The receiver is away, busy, or not where the file says: the message waits for it."""
    REFUSED = auto()
    """The receiver does not take this message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt; `text` says it without secrets, `retry_after_seconds` is 0 where nothing was said."""

    verdict: Verdict
    text: str
    retry_after_seconds: float = 0.0


def _now() -> datetime:
    return datetime.now(UTC)


class Sender:
    """Posts messages to one webhook."""

    def __init__(
        self,
        webhook: Webhook,
        client: httpx.AsyncClient,
        now: Callable[[], datetime] = _now,
        *,
        attempt_seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        self._webhook = webhook
        self._client = client
        self._now = now
        self._attempt_seconds = attempt_seconds
        self._signer = None if webhook.secret is None else Signer(webhook.secret)

    async def send(self, message: Message) -> Answer:
        """Post a message; whatever goes wrong is an answer too."""
        try:
            async with asyncio.timeout(self._attempt_seconds):
                return await self._post(message)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            trouble = str(error) or "no answer in time"
            return Answer(Verdict.AGAIN, self._without_secrets(f"{type(error).__name__}: {trouble}"))

    async def _post(self, message: Message) -> Answer:
        request = self._client.stream(
            "POST", self._webhook.url, content=message.body, headers=self._headers(message)
        )
        async with request as response:
            verdict = judge(response.status_code)
            text = _name(response.status_code)
            if verdict is not Verdict.DELIVERED:
                text = ": ".join(filter(None, (text, self._without_secrets(await _beginning(response)))))
            return Answer(verdict, text, self._retry_after(response))

    def _headers(self, message: Message) -> dict[str, str]:
        now = self._now()
        headers = _HEADERS | {"webhook-id": message.id, "webhook-timestamp": str(int(now.timestamp()))}
        if self._signer is not None:
            headers["webhook-signature"] = self._signer.sign(message.id, now, message.body.decode())
        return headers

    def _retry_after(self, response: httpx.Response) -> float:
        said = response.headers.get("retry-after", "")
        try:
            seconds = float(said) if said.isdigit() else self._until(parsedate_to_datetime(said))
        except (ValueError, OverflowError):
            return 0.0
        return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)

    def _until(self, time: datetime) -> float:
        return (time.replace(tzinfo=time.tzinfo or UTC) - self._now()).total_seconds()

    def _without_secrets(self, text: str) -> str:
        """Take the parts of the address out, which errors and error pages like to repeat."""
        parts = urlsplit(self._webhook.url)
        secrets = [parts.username, parts.password, parts.query, *parts.path.split("/")]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            if len(secret) > _LONGEST_WORD:
                text = text.replace(secret, "…")
        return one_line(text)


def judge(status: int) -> Verdict:
    """Tell what a status means: 2xx is delivered; of 4xx only what does not pass and is not the address's fault is refused."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict.DELIVERED
    is_refusal = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    if is_refusal and status not in _PASSING and status not in _MISCONFIGURED:
        return Verdict.REFUSED
    return Verdict.AGAIN


def _name(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


async def _beginning(response: httpx.Response) -> str:
    read = b""
    async for chunk in response.aiter_raw(ANSWER_LIMIT_BYTES):
        read += chunk
        if len(read) >= ANSWER_LIMIT_BYTES:
            break
    return read[:ANSWER_LIMIT_BYTES].decode(errors="replace")


@asynccontextmanager
async def open_sender(webhook: Webhook) -> AsyncIterator[Sender]:
    """Lend a sender with connections of its own."""
    # They tell of whole addresses, in which chats keep their secret.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    async with httpx.AsyncClient(timeout=ATTEMPT_SECONDS, follow_redirects=False) as client:
        yield Sender(webhook, client)
