from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from breaker_store.alerting.configuration import Format
from breaker_store.alerting.messages import Message
from breaker_store.alerting.sending import Answer, Sender, Verdict, judge, open_sender

from .making import SECRET, webhook
from .receiver import CUT, HANG, Receiver

MESSAGE = Message("msg_1", b'{"text":"\\u00fc"}')
NOW = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)


async def send(url: str, message: Message = MESSAGE, **options: object) -> Answer:
    async with open_sender(webhook(**{"url": url} | options)) as sender:
        return await sender.send(message)


async def test_a_message_is_posted_signed_as_standard_webhooks_verifies(receiver: Receiver) -> None:
    answer = await send(receiver.url)

    assert answer == Answer(Verdict.DELIVERED, "200 OK")
    [received] = receiver.taken
    assert received.headers["content-type"] == "application/json"
    assert Verifier(SECRET).verify(received.body, received.headers) == {"text": "ü"}
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(received.body + b" ", received.headers)


async def test_an_attempt_has_its_own_time_and_the_messages_id(receiver: Receiver) -> None:
    async with httpx.AsyncClient() as client:
        await Sender(webhook(url=receiver.url), client, lambda: NOW).send(MESSAGE)

    [received] = receiver.taken
    assert received.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert received.id == "msg_1"


async def test_without_a_secret_a_message_goes_unsigned(receiver: Receiver) -> None:
    await send(receiver.url, chosen=Format.CHAT, secret=None)

    [received] = receiver.taken
    assert "webhook-signature" not in received.headers


async def test_name_and_password_in_the_address_are_sent_as_basic_authorization(receiver: Receiver) -> None:
    await send(receiver.url.replace("http://", "http://user:pass@"))

    [received] = receiver.taken
    assert received.headers["authorization"] == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ({200, 201, 202, 204}, Verdict.DELIVERED),
        ({400, 402, 406, 409, 413, 415, 422}, Verdict.REFUSED),
        ({408, 425, 429, 500, 502, 503, 504, 599}, Verdict.AGAIN),
        ({301, 302, 307, 308, 401, 403, 404, 405, 407, 410, 101, 999}, Verdict.AGAIN),
    ],
)
def test_what_a_status_means(statuses: set[int], verdict: Verdict) -> None:
    assert {judge(status) for status in statuses} == {verdict}


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.always, receiver.headers = 307, {"location": receiver.url}

    answer = await send(receiver.url)

    assert answer == Answer(Verdict.AGAIN, "307 Temporary Redirect")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("999999999", 3_600.0),
        ("Thu, 26 Nov 2026 09:00:30 GMT", 30.0),
        ("Thu, 26 Nov 2026 08:00:00 GMT", 0.0),
        ("soon", 0.0),
        ("-1", 0.0),
        ("²", 0.0),
    ],
)
async def test_how_long_to_wait_is_what_the_receiver_says_within_an_hour(
    receiver: Receiver, said: str, seconds: float
) -> None:
    receiver.always, receiver.headers = 429, {"retry-after": said}
    async with httpx.AsyncClient() as client:
        answer = await Sender(webhook(url=receiver.url), client, lambda: NOW).send(MESSAGE)

    assert answer == Answer(Verdict.AGAIN, "429 Too Many Requests", seconds)


async def test_the_beginning_of_a_refusal_is_told_without_the_addresss_secrets(receiver: Receiver) -> None:
    receiver.always = 400
    receiver.text = "no such hook: /services/secret-path\n<b>" + "x" * 100_000

    answer = await send(receiver.url)

    assert answer.verdict is Verdict.REFUSED
    assert answer.text.startswith("400 Bad Request: no such hook: /services/… ‹b›xxx")  # noqa: RUF001 - as shown
    assert len(answer.text) < 250


async def test_a_receiver_that_is_not_there_is_to_be_asked_again() -> None:
    answer = await send("http://127.0.0.1:1/services/secret-path")

    assert (answer.verdict, answer.text) == (Verdict.AGAIN, "ConnectError: All connection attempts failed")


async def test_so_is_one_that_cuts_the_connection(receiver: Receiver) -> None:
    receiver.always = CUT

    answer = await send(receiver.url)

    assert answer.verdict is Verdict.AGAIN
    assert answer.text.startswith("RemoteProtocolError: ")


async def test_one_that_says_nothing_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.always = HANG
    async with httpx.AsyncClient() as client:
        sender = Sender(webhook(url=receiver.url), client, attempt_seconds=0.05)
        async with asyncio.timeout(5):
            answer = await sender.send(MESSAGE)

    assert answer == Answer(Verdict.AGAIN, "TimeoutError: no answer in time")


@pytest.mark.parametrize("url", ["http://exa mple", "http://xn--/", "http://" + "a" * 300])
async def test_an_address_that_the_client_cannot_use_is_an_answer_too(url: str) -> None:
    answer = await send(url)

    assert answer.verdict is Verdict.AGAIN


async def test_no_log_shows_the_path_in_which_chats_keep_their_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    await send(receiver.url)

    assert "secret-path" not in caplog.text
