"""Delivers a webhook's messages: in order, each until it is taken, whatever happens to this process meanwhile.

A window of the log is settled in the database before its first message is sent. Its messages are made of the log alone.
So a process that takes over, after a crash too, makes the same messages, passes by those that are done with, and sends
the others: again, perhaps, but under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, cast

import tenacity

from breaker_store.alerting.configuration import Webhook
from breaker_store.alerting.messages import Message, compose
from breaker_store.alerting.sending import ATTEMPT_SECONDS, Answer, Sender, Verdict, open_sender
from breaker_store.errors import StoreError
from breaker_store.postgres.webhook_queue import LEASE_SECONDS, LeaseLostError, WebhookQueue

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
DEFECT_SECONDS: Final = 60.0
RENEW_SECONDS: Final = LEASE_SECONDS / 6
LONGEST_BACKOFF_SECONDS: Final = 300.0

REFUSALS: Final = 5
"""How often a receiver may refuse a message before it is set aside."""

WINDOW: Final = 10_000
"""How many transitions of the log are told at a time at most, which bounds what is kept in memory."""

_CLOSE_SECONDS: Final = 1.0

Pause = Callable[[float], Awaitable[None]]


class Delivery:
    """Delivers one webhook, if no other process does."""

    def __init__(
        self,
        webhook: Webhook,
        queue: WebhookQueue,
        sender: Sender,
        *,
        pause: Pause = asyncio.sleep,
        window: int = WINDOW,
    ) -> None:
        self._webhook = webhook
        self._queue = queue
        self._sender = sender
        self._pause = pause
        self._window = window
        self._away = False

    async def run(self) -> None:
        """Deliver until cancelled; while the database is away, go on trying."""
        while True:
            try:
                while await self.deliver_next():
                    pass
                self._away = False
            except LeaseLostError as error:
                logger.info("%s", error)
            except StoreError as error:
                if not self._away:
                    logger.warning("webhook %s can't be delivered for now: %s", self._webhook.name, error)
                self._away = True
            except Exception:
                # A defect of ours; it must not end the telling for ever.
                logger.exception("webhook %s can't be delivered", self._webhook.name)
                await self._pause(DEFECT_SECONDS)
            await self._pause(POLL_SECONDS)

    async def deliver_next(self) -> bool:
        """Deliver a window; tell whether there was one, and so may be another."""
        if not await self._hold():
            return False
        last, is_known_history = await self._queue.look()
        if not is_known_history:
            await self._begin_anew(last)
            return False
        place = self._queue.place
        if place.window_to is None:
            if last == place.position:
                return False
            return await self._open_window(last)
        await self._deliver_window(place.window_to, place.window_mark)
        return True

    async def _hold(self) -> bool:
        if self._queue.held_seconds > LEASE_SECONDS - RENEW_SECONDS:
            return True
        return await self._queue.claim()

    async def _begin_anew(self, last: int) -> None:
        trouble = "the log is not the one that was told of: it was restored, or is an older copy"
        logger.critical("webhook %s: %s; it goes on at the log's end", self._webhook.name, trouble)
        await self._queue.record_error(trouble)
        await self._queue.move_on(last)

    async def _open_window(self, last: int) -> bool:
        """Settle what is told next; what comes within the grouping time of it is told with it."""
        limit = self._queue.place.position + self._window
        until = min(last, limit)
        if not await self._queue.has_news(until):
            await self._queue.move_on(until)
            return True
        if last < limit:
            await self._wait(self._webhook.group_seconds)
            last, _ = await self._queue.look()
        await self._queue.open_window(min(last, limit))
        return True

    async def _deliver_window(self, until: int, mark: str | None) -> None:
        notices = await self._queue.notices(until)
        # In a thread: ten thousand of them take a while, and the API has this loop too.
        messages = await asyncio.to_thread(lambda: list(compose(self._webhook, notices)))
        for message in after(mark, messages):
            answer = await self._deliver(message)
            if answer.verdict is Verdict.DELIVERED:
                await self._queue.record_delivered(message.mark)
            else:
                logger.error(
                    "webhook %s refuses message %s, which is set aside: %s",
                    self._webhook.name,
                    message.id,
                    answer.text,
                )
                await self._queue.record_refused(message.mark)
        await self._queue.move_on(until)

    async def _deliver(self, message: Message) -> Answer:
        """Send a message until it is taken, or refused too often."""
        refusals = iter(range(1, REFUSALS))

        def refused_too_often(attempt: tenacity.RetryCallState) -> bool:
            return _answer_of(attempt).verdict is Verdict.REFUSED and next(refusals, None) is None

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda answer: answer.verdict is not Verdict.DELIVERED),
            stop=refused_too_often,
            wait=_backoff,
            sleep=self._wait,
            retry_error_callback=_answer_of,
        )
        answer: Answer = await attempts(self._attempt, message)
        return answer

    async def _attempt(self, message: Message) -> Answer:
        # Nobody else may take over while it is under way: what arrives then would be out of order.
        if self._queue.held_seconds < ATTEMPT_SECONDS + RENEW_SECONDS:
            await self._queue.renew()
        answer = await self._sender.send(message)
        if answer.verdict is not Verdict.DELIVERED:
            logger.warning("webhook %s: message %s: %s", self._webhook.name, message.id, answer.text)
            await self._queue.record_error(answer.text)
        return answer

    async def _wait(self, seconds: float) -> None:
        """Wait, and keep the lease."""
        while seconds > 0:
            part = min(seconds, RENEW_SECONDS)
            await self._pause(part)
            await self._queue.renew()
            seconds -= part


def after(mark: str | None, messages: list[Message]) -> list[Message]:
    """Leave out the messages up to the one of a mark; none if there is no such: they are rather sent twice than never."""
    marks = [message.mark for message in messages]
    return messages[marks.index(mark) + 1 :] if mark in marks else messages


def _answer_of(attempt: tenacity.RetryCallState) -> Answer:
    answer: Answer = cast("tenacity.Future", attempt.outcome).result()
    return answer


_exponential: Final = tenacity.wait_random_exponential(multiplier=1, min=1, max=LONGEST_BACKOFF_SECONDS)


def _backoff(attempt: tenacity.RetryCallState) -> float:
    """Wait longer each time, by chance so that not all come back at once, and never less than the receiver asks for."""
    return max(_exponential(attempt), _answer_of(attempt).retry_after_seconds)


@asynccontextmanager
async def delivering(webhooks: Sequence[Webhook], database_url: str) -> AsyncIterator[None]:
    """Deliver webhooks beside the block, each by itself; what is under way at its end is sent again later."""
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(open_sender(webhook)) for webhook in webhooks]
        tasks = [
            asyncio.create_task(_deliver(webhook, database_url, sender), name=f"webhook {webhook.name}")
            for webhook, sender in zip(webhooks, senders, strict=True)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _deliver(webhook: Webhook, database_url: str, sender: Sender) -> None:
    queue = WebhookQueue(database_url, webhook.name)
    try:
        await Delivery(webhook, queue, sender).run()
    finally:
        # A database that does not answer has the lease lapse by itself.
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await queue.close()
