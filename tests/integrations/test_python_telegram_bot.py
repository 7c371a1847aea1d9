"""The real python-telegram-bot, over sockets, against a Bot API that answers in Telegram's shapes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from telegram import Bot, InputFile, InputMediaDocument, Message, Update
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)
from telegram.ext import Application, CallbackContext, TypeHandler
from telegram.request import HTTPXRequest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, NotCommittedError, Policy
from breaker_store.bots import NO_RETRIES, BotFleet, RateLimitedError, RetryPolicy, UserBotCredentials
from breaker_store.core.events import PERMANENT_REASON, CircuitState, Kind, Outcome, StoredEvent, Verdict
from breaker_store.failures import PYTHON_TELEGRAM_BOT, Category
from breaker_store.integrations.python_telegram_bot import BreakerRequest
from tests.integrations.bot_api import (
    BAD_GATEWAY,
    BLOCKED,
    CHAT,
    CHAT_NOT_FOUND,
    CONFLICT,
    CUT,
    MIGRATED,
    NO_SUCH_METHOD,
    SERVER_ERROR,
    SILENCE,
    TOKEN,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    Answer,
    BotApi,
    refuse,
    serving,
)
from tests.integrations.calling_again import CallingAgain
from tests.runtime.driving import USER, Recording, transitions

WAIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def durations_as_they_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the library give its waits as timedelta: it warns of the numbers that it gives otherwise."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with serving() as api:
        yield api


@pytest.fixture
def recording() -> Recording:
    return Recording(Policy(failure_threshold=2, timeout_seconds=WAIT_SECONDS, success_threshold=1))


def make_bot(api: BotApi, request: BreakerRequest) -> Bot:
    return Bot(TOKEN, f"{api.url}/bot", f"{api.url}/file/bot", request=request)


async def started(api: BotApi, request: BreakerRequest) -> AsyncIterator[Bot]:
    async with make_bot(api, request) as bot:
        api.received.clear()
        yield bot


@pytest.fixture
async def bot(api: BotApi, recording: Recording) -> AsyncIterator[Bot]:
    """Start a bot; what it asked at the start is no longer to be seen."""
    async for bot in started(api, BreakerRequest(recording.breaker)):
        recording.events()
        yield bot


@pytest.fixture
def guard(recording: Recording) -> CallingAgain:
    return CallingAgain(recording.breaker)


@pytest.fixture
async def retrying_bot(api: BotApi, guard: CallingAgain, recording: Recording) -> AsyncIterator[Bot]:
    async for bot in started(api, BreakerRequest(guard)):
        guard.asked.clear()
        recording.events()
        yield bot


async def send(bot: Bot) -> Message:
    return await bot.send_message(CHAT, "hi")


def only(events: list[StoredEvent]) -> Outcome:
    (event,) = events
    assert isinstance(event, Outcome)
    return event


async def test_a_request_is_recorded_by_its_method_and_how_long_it_took(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    api.meanwhile = lambda: recording.clock.advance(0.25)
    message = await send(bot)
    assert (message.chat.id, message.text) == (CHAT, "hi")
    event = only(recording.events())
    assert (event.kind, event.operation, event.duration_us) == (Kind.SUCCESS, "sendMessage", 250_000)


SUCCESSFUL, FAILED = (Kind.SUCCESS, Verdict.COUNTED), (Kind.FAILURE, Verdict.COUNTED)
ANSWERS: list[tuple[Answer | str, type[Exception], tuple[Kind, Verdict], str, str]] = [
    (
        TOO_MANY_REQUESTS,
        RetryAfter,
        (Kind.SUCCESS, Verdict.NOT_COUNTED),
        "http.TooManyRequests",
        "429 Too Many Requests: retry after 5",
    ),
    (BLOCKED, Forbidden, SUCCESSFUL, "http.Forbidden", "403 Forbidden: bot was blocked by the user"),
    (CHAT_NOT_FOUND, BadRequest, SUCCESSFUL, "http.BadRequest", "400 Bad Request: chat not found"),
    (
        MIGRATED,
        ChatMigrated,
        SUCCESSFUL,
        "http.BadRequest",
        "400 Bad Request: group chat was upgraded to a supergroup chat",
    ),
    (NO_SUCH_METHOD, InvalidToken, SUCCESSFUL, "http.NotFound", "404 Not Found"),
    (
        CONFLICT,
        Conflict,
        SUCCESSFUL,
        "http.Conflict",
        "409 Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
    ),
    (TOO_LARGE, NetworkError, SUCCESSFUL, "http.RequestEntityTooLarge", "413 Request Entity Too Large"),
    (SERVER_ERROR, NetworkError, FAILED, "http.InternalServerError", "500 Internal Server Error"),
    (BAD_GATEWAY, NetworkError, FAILED, "http.BadGateway", "502 Bad Gateway"),
    (
        refuse(500, f"no such bot: {TOKEN}"),
        NetworkError,
        FAILED,
        "http.InternalServerError",
        "500 Internal Server Error: no such bot: [hidden]",
    ),
    (Answer(302, ""), NetworkError, FAILED, "breaker_store.core.failures.BadAnswer", "302 Found"),
]


@pytest.mark.parametrize(("answer", "error", "meaning", "error_type", "text"), ANSWERS)
async def test_each_answer_is_raised_as_the_library_raises_it_and_counts_for_what_it_is(
    api: BotApi,
    bot: Bot,
    recording: Recording,
    answer: Answer | str,
    error: type[Exception],
    meaning: tuple[Kind, Verdict],
    error_type: str,
    text: str,
) -> None:
    api.answers.append(answer)
    with pytest.raises(error) as caught:
        await send(bot)
    assert type(caught.value) is error
    event = only(recording.events())
    assert (event.kind, event.verdict) == meaning
    assert (event.operation, event.error_type, event.error_message) == ("sendMessage", error_type, text)


@pytest.mark.parametrize("body", ['"a text"', '{"parameters": [1]}', '{"description": 5}', "\x00", ""])
async def test_a_bad_answer_of_an_unknown_shape_counts_by_its_status(
    api: BotApi, bot: Bot, recording: Recording, body: str
) -> None:
    api.answers.append(Answer(503, body))
    with pytest.raises(Exception):  # noqa: B017 - what the library makes of such a body is its own affair
        await send(bot)
    event = only(recording.events())
    assert (event.kind, event.error_message) == (Kind.FAILURE, "503 Service Unavailable")


async def test_a_broken_connection_is_a_failure(api: BotApi, bot: Bot, recording: Recording) -> None:
    api.answers.append(CUT)
    with pytest.raises(NetworkError, match="RemoteProtocolError"):
        await send(bot)
    event = only(recording.events())
    assert (event.kind, event.error_type) == (Kind.FAILURE, "telegram.error.NetworkError")


async def test_a_server_that_says_nothing_is_a_failure(api: BotApi, bot: Bot, recording: Recording) -> None:
    api.always = SILENCE
    with pytest.raises(TimedOut):
        await bot.send_message(CHAT, "hi", read_timeout=0.05)
    event = only(recording.events())
    assert (event.kind, event.error_type) == (Kind.FAILURE, "telegram.error.TimedOut")


async def test_a_revoked_token_opens_the_breaker_at_once_and_nothing_more_is_sent(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    api.always = refuse(401, "Unauthorized: the token was revoked")
    with pytest.raises(InvalidToken):
        await send(bot)
    with pytest.raises(CircuitBreakerOpenError) as caught:
        await send(bot)
    assert api.methods == ["sendMessage"]
    assert caught.value.last_failure is not None
    assert caught.value.last_failure.error_message == "401 Unauthorized: the token was revoked"
    events = recording.events()
    assert [event.kind for event in events] == [Kind.FAILURE, Kind.OPENED, Kind.REJECTED]
    (opened,) = transitions(events)
    assert opened.reason == PERMANENT_REASON


async def test_a_refusal_is_raised_as_it_is_and_is_no_outcome_of_a_breaker_around_it(
    bot: Bot, recording: Recording
) -> None:
    recording.breaker.force_open()
    outer = CircuitBreaker(failure_threshold=1)
    with pytest.raises(CircuitBreakerOpenError) as caught:
        await outer.call(send, bot)
    assert not isinstance(caught.value, TelegramError)
    assert caught.value.__suppress_context__
    assert outer.state.state is CircuitState.CLOSED


class NotCommittingGuard:
    """A guard whose call succeeds, and whose event may not be stored."""

    failures = None

    async def protect(self, func: Any, **_asked: Any) -> Any:
        raise NotCommittedError("the store was closed", await func(None)) from OSError("disk full")


async def test_a_call_that_was_not_committed_tells_so_and_what_it_gave(api: BotApi) -> None:
    request = BreakerRequest(NotCommittingGuard())  # type: ignore[arg-type]
    with pytest.raises(NotCommittedError, match="the store was closed") as caught:
        await send(make_bot(api, request))
    await request.shutdown()
    status, payload = caught.value.result
    assert (status, json.loads(payload)["result"]["text"]) == (200, "hi")
    assert isinstance(caught.value.__cause__, OSError)


async def test_an_unknown_error_of_the_wrapped_request_is_raised_as_without_a_breaker(
    bot: Bot, recording: Recording
) -> None:
    await bot._request[1].shutdown()
    with pytest.raises(NetworkError, match="not initialized"):
        await send(bot)
    event = only(recording.events())
    assert (event.kind, event.error_type) == (Kind.FAILURE, "RuntimeError")


async def test_failures_in_a_row_open_the_breaker_and_a_probe_closes_it(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    api.answers += [SERVER_ERROR, CUT]
    for _ in range(2):
        with pytest.raises(NetworkError):
            await send(bot)
    with pytest.raises(CircuitBreakerOpenError):
        await send(bot)
    assert len(api.received) == 2
    recording.clock.advance(WAIT_SECONDS)
    await send(bot)
    assert recording.breaker.state.state is CircuitState.CLOSED


async def test_half_open_lets_one_request_through(api: BotApi, bot: Bot, recording: Recording) -> None:
    api.answers += [UNAUTHORIZED, SILENCE]
    with pytest.raises(InvalidToken):
        await send(bot)
    recording.clock.advance(WAIT_SECONDS)
    probe = asyncio.create_task(send(bot))
    await api.wait_for(2)
    with pytest.raises(CircuitBreakerOpenError):
        await send(bot)
    assert len(api.received) == 2
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    await send(bot)
    assert recording.breaker.state.state is CircuitState.CLOSED


async def test_a_cancelled_request_is_no_outcome(api: BotApi, bot: Bot, recording: Recording) -> None:
    api.always = SILENCE
    request = asyncio.create_task(send(bot))
    await api.wait_for(1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert recording.events() == []


async def test_what_an_error_means_can_be_chosen(api: BotApi, recording: Recording) -> None:
    table = PYTHON_TELEGRAM_BOT | {403: Category.PERMANENT}
    async for bot in started(api, BreakerRequest(recording.breaker, failures=table)):
        api.always = BLOCKED
        with pytest.raises(Forbidden):
            await send(bot)
    assert recording.breaker.state.state is CircuitState.OPEN


async def test_a_file_is_fetched_through_the_breaker_and_its_name_is_not_recorded(
    bot: Bot, recording: Recording
) -> None:
    file = await bot.get_file("F")
    assert await file.download_as_bytearray() == b"photos/file_1.jpg"
    operations = [event.operation for event in recording.events() if isinstance(event, Outcome)]
    assert operations == ["getFile", "download"]


class OwnRequest(HTTPXRequest):
    """A request object as a user may write it: it reads JSON in its own way."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        answer = HTTPXRequest.parse_json_payload(payload)
        answer["result"]["text"] = "read in its own way"
        return answer


async def test_the_wrapped_request_goes_on_as_it_was_made(api: BotApi, recording: Recording) -> None:
    request = BreakerRequest(recording.breaker, OwnRequest(read_timeout=7))
    assert request.read_timeout == 7
    async for bot in started(api, request):
        assert (await send(bot)).text == "read in its own way"
    with pytest.raises(NetworkError, match="not initialized"):
        await send(bot)


async def test_a_guard_that_tries_again_sends_the_same_again(
    api: BotApi, retrying_bot: Bot, guard: CallingAgain, recording: Recording
) -> None:
    api.answers.append(SERVER_ERROR)
    message = await send(retrying_bot)
    assert message.text == "hi"
    assert guard.asked == [{"operation": "sendMessage", "chat_id": CHAT, "repeatable": True}]
    assert api.received[0] == api.received[1]
    attempts = [(event.kind, event.attempt) for event in recording.events() if isinstance(event, Outcome)]
    assert attempts == [(Kind.FAILURE, None), (Kind.SUCCESS, 2)]


async def test_a_bots_instance_tries_again(api: BotApi, recording: Recording) -> None:
    fleet = BotFleet(recording.registry, retries=RetryPolicy(first_pause_seconds=0))
    instance = fleet.get_instance(UserBotCredentials(USER, TOKEN))
    async for bot in started(api, BreakerRequest(instance)):
        api.answers += [BAD_GATEWAY, BLOCKED]
        with pytest.raises(Forbidden):
            await send(bot)
        assert api.methods == ["sendMessage", "sendMessage"]


async def test_a_limit_of_a_bots_instance_is_raised_as_it_is(api: BotApi, recording: Recording) -> None:
    instance = BotFleet(recording.registry, retries=NO_RETRIES).get_instance(UserBotCredentials(USER, TOKEN))
    async for bot in started(api, BreakerRequest(instance)):
        api.answers.append(refuse(429, "Too Many Requests: retry after 100", retry_after=100))
        with pytest.raises(RetryAfter):
            await send(bot)
        with pytest.raises(RateLimitedError) as caught:
            await send(bot)
    assert caught.value.retry_after == pytest.approx(100)


async def test_the_last_answer_of_several_is_the_one_that_is_raised(api: BotApi, retrying_bot: Bot) -> None:
    api.answers += [SERVER_ERROR, BLOCKED]
    with pytest.raises(Forbidden, match="blocked by the user"):
        await send(retrying_bot)


async def test_a_method_without_a_chat_names_none_to_the_guard(
    retrying_bot: Bot, guard: CallingAgain
) -> None:
    await retrying_bot.delete_my_commands()
    assert guard.asked == [{"operation": "deleteMyCommands", "chat_id": None, "repeatable": True}]


async def test_files_in_memory_are_sent_again(api: BotApi, retrying_bot: Bot) -> None:
    api.answers.append(SERVER_ERROR)
    await retrying_bot.send_document(CHAT, io.BytesIO(b"in memory"), thumbnail=b"small")
    assert len(api.received) == 2
    for request in api.received:
        assert sorted(request.files.values()) == [b"in memory", b"small"]


@pytest.mark.parametrize("is_nested", [False, True])
async def test_a_file_that_is_read_while_it_is_sent_is_sent_once(
    api: BotApi, retrying_bot: Bot, is_nested: bool
) -> None:
    api.answers.append(SERVER_ERROR)
    file = InputFile(io.BytesIO(b"once"), "once.txt", attach=is_nested, read_file_handle=False)
    with pytest.raises(NetworkError):
        if is_nested:
            await retrying_bot.send_media_group(CHAT, [InputMediaDocument(file)])
        else:
            await retrying_bot.send_document(CHAT, file)
    assert [list(request.files.values()) for request in api.received] == [[b"once"]]


Own = Application[Any, Any, Any, Any, Any, Any]


def make_application(api: BotApi, request: BreakerRequest) -> Own:
    """Make an application as the README does."""
    return Application.builder().token(TOKEN).base_url(f"{api.url}/bot").request(request).build()


@pytest.fixture
async def application(api: BotApi, recording: Recording) -> AsyncIterator[Own]:
    async with make_application(api, BreakerRequest(recording.breaker)) as application:
        recording.events()
        yield application


async def test_a_bot_whose_breaker_is_open_starts(api: BotApi, recording: Recording) -> None:
    recording.breaker.force_open()
    async with make_application(api, BreakerRequest(recording.breaker)) as application:
        assert application.bot.username
    assert api.methods == ["getMe"]


async def test_what_passes_by_can_be_chosen(api: BotApi, recording: Recording) -> None:
    recording.breaker.force_open()
    application = make_application(api, BreakerRequest(recording.breaker, passing_by=()))
    with pytest.raises(CircuitBreakerOpenError):
        await application.initialize()
    await application.shutdown()


async def test_long_polling_passes_by(api: BotApi, application: Own, recording: Recording) -> None:
    recording.breaker.force_open()
    recording.events()
    assert await application.bot.get_updates() == ()
    api.answers.append(UNAUTHORIZED)
    with pytest.raises(InvalidToken):
        await application.bot.get_updates()
    assert recording.events() == []


async def test_an_error_handler_is_told_of_the_refusal_itself(
    api: BotApi, application: Own, recording: Recording
) -> None:
    told: list[Exception | None] = []

    async def answer(_update: Update, context: CallbackContext[Any, Any, Any, Any]) -> None:
        await context.bot.send_message(CHAT, "hi")

    async def tell(_update: object, context: CallbackContext[Any, Any, Any, Any]) -> None:
        told.append(context.error)

    application.add_handler(TypeHandler(Update, answer))
    application.add_error_handler(tell)
    await application.process_update(Update(1))
    recording.breaker.force_open()
    await application.process_update(Update(2))
    assert [type(error) for error in told] == [CircuitBreakerOpenError]
    assert api.methods == ["getMe", "sendMessage"]
