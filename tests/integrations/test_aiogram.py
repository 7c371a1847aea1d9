"""The real aiogram, over sockets, against a Bot API that answers in Telegram's shapes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramBadRequest,
    TelegramConflictError,
    TelegramEntityTooLarge,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.methods import SendMessage
from aiogram.types import (
    BufferedInputFile,
    Chat,
    FSInputFile,
    InputFile,
    InputMediaDocument,
    InputMediaPhoto,
    Message,
    Update,
    URLInputFile,
)
from pydantic import ValidationError

from breaker_store import CircuitBreakerOpenError, Policy
from breaker_store.bots import BotFleet, RetryPolicy, UserBotCredentials
from breaker_store.core.events import PERMANENT_REASON, CircuitState, Kind, Outcome, StoredEvent, Verdict
from breaker_store.failures import AIOGRAM, Category
from breaker_store.integrations.aiogram import CircuitBreakerMiddleware
from tests.integrations.bot_api import (
    BAD_GATEWAY,
    BLOCKED,
    CHAT,
    CHAT_NOT_FOUND,
    CONFLICT,
    CUT,
    MIGRATED,
    NO_SUCH_METHOD,
    OTHER_TOKEN,
    SERVER_ERROR,
    SILENCE,
    SUCCESS,
    TOKEN,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    Answer,
    BotApi,
    serving,
)
from tests.integrations.calling_again import CallingAgain
from tests.runtime.driving import USER, Recording, transitions

WAIT_SECONDS = 30.0
LARGE = b"on disk" * 20_000


class PromptSession(AiohttpSession):
    """Closes without the quarter of a second that TLS may need."""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class OnceOnlyFile(InputFile):
    """A file that nobody can read twice."""

    def __init__(self, chunks: list[bytes]) -> None:
        super().__init__("once.txt")
        self._chunks = iter(chunks)

    async def read(self, bot: Bot) -> AsyncGenerator[bytes, None]:
        for chunk in self._chunks:
            yield chunk


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with serving() as api:
        yield api


@pytest.fixture
def recording() -> Recording:
    return Recording(Policy(failure_threshold=2, timeout_seconds=WAIT_SECONDS, success_threshold=1))


@pytest.fixture
async def session(api: BotApi) -> AsyncIterator[AiohttpSession]:
    async with PromptSession(api=TelegramAPIServer.from_base(api.url)) as session:
        yield session


@pytest.fixture
def plain_bot(session: AiohttpSession) -> Bot:
    return Bot(TOKEN, session)


@pytest.fixture
def bot(plain_bot: Bot, recording: Recording) -> Bot:
    plain_bot.session.middleware(CircuitBreakerMiddleware(recording.breaker))
    return plain_bot


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


ANSWERS: list[tuple[Answer | str, type[Exception], Kind, Verdict, str]] = [
    (TOO_MANY_REQUESTS, TelegramRetryAfter, Kind.SUCCESS, Verdict.NOT_COUNTED, "retry after 5"),
    (BLOCKED, TelegramForbiddenError, Kind.SUCCESS, Verdict.COUNTED, "blocked by the user"),
    (CHAT_NOT_FOUND, TelegramBadRequest, Kind.SUCCESS, Verdict.COUNTED, "chat not found"),
    (MIGRATED, TelegramMigrateToChat, Kind.SUCCESS, Verdict.COUNTED, "upgraded to a supergroup"),
    (NO_SUCH_METHOD, TelegramNotFound, Kind.SUCCESS, Verdict.COUNTED, "Not Found"),
    (CONFLICT, TelegramConflictError, Kind.SUCCESS, Verdict.COUNTED, "terminated by other getUpdates"),
    (TOO_LARGE, TelegramEntityTooLarge, Kind.SUCCESS, Verdict.COUNTED, "Entity Too Large"),
    (SERVER_ERROR, TelegramServerError, Kind.FAILURE, Verdict.COUNTED, "Internal Server Error"),
    (BAD_GATEWAY, ClientDecodeError, Kind.FAILURE, Verdict.COUNTED, "502 Bad Gateway"),
    (CUT, TelegramNetworkError, Kind.FAILURE, Verdict.COUNTED, "ServerDisconnectedError"),
]


@pytest.mark.parametrize(("answer", "error", "kind", "verdict", "text"), ANSWERS)
async def test_each_answer_is_raised_as_aiogram_raises_it_and_counts_for_what_it_is(
    api: BotApi,
    bot: Bot,
    recording: Recording,
    answer: Answer | str,
    error: type[Exception],
    kind: Kind,
    verdict: Verdict,
    text: str,
) -> None:
    api.answers.append(answer)
    with pytest.raises(error) as caught:
        await send(bot)
    assert type(caught.value) is error
    event = only(recording.events())
    assert (event.kind, event.verdict, event.operation) == (kind, verdict, "sendMessage")
    assert event.error_type == f"aiogram.exceptions.{error.__name__}"
    assert event.error_message is not None
    assert text in event.error_message


async def test_a_server_that_says_nothing_is_a_failure(api: BotApi, bot: Bot, recording: Recording) -> None:
    api.always = SILENCE
    with pytest.raises(TelegramNetworkError, match="timeout"):
        await bot.send_message(CHAT, "hi", request_timeout=0.05)  # type: ignore[arg-type]
    assert only(recording.events()).kind is Kind.FAILURE


async def test_a_server_that_is_not_there_is_a_failure(
    bot: Bot, recording: Recording, unused_tcp_port: int
) -> None:
    bot.session.api = TelegramAPIServer.from_base(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(TelegramNetworkError, match="ClientConnectorError"):
        await send(bot)
    assert only(recording.events()).kind is Kind.FAILURE


async def test_a_token_that_an_error_tells_is_not_recorded(
    bot: Bot, recording: Recording, tmp_path: Path
) -> None:
    with pytest.raises(TelegramNetworkError, match=TOKEN):
        await bot.send_document(CHAT, FSInputFile(tmp_path / "no-such-file"))
    event = only(recording.events())
    assert event.error_message is not None
    assert "/bot[hidden]/sendDocument" in event.error_message


async def test_a_revoked_token_opens_the_breaker_at_once_and_nothing_more_is_sent(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    api.always = UNAUTHORIZED
    with pytest.raises(TelegramUnauthorizedError):
        await send(bot)
    with pytest.raises(CircuitBreakerOpenError) as caught:
        await send(bot)
    assert api.methods == ["sendMessage"]
    assert caught.value.last_failure is not None
    assert caught.value.last_failure.error_message == "Telegram server says - Unauthorized"
    events = recording.events()
    assert [event.kind for event in events] == [Kind.FAILURE, Kind.OPENED, Kind.REJECTED]
    (opened,) = transitions(events)
    assert opened.reason == PERMANENT_REASON


async def test_failures_in_a_row_open_the_breaker_and_a_probe_closes_it(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    api.answers += [SERVER_ERROR, CUT]
    for _ in range(2):
        with pytest.raises((TelegramServerError, TelegramNetworkError)):
            await send(bot)
    with pytest.raises(CircuitBreakerOpenError):
        await send(bot)
    assert len(api.received) == 2
    recording.clock.advance(WAIT_SECONDS)
    await send(bot)
    assert recording.breaker.state.state is CircuitState.CLOSED


async def test_half_open_lets_one_request_through(api: BotApi, bot: Bot, recording: Recording) -> None:
    api.answers += [UNAUTHORIZED, SILENCE]
    with pytest.raises(TelegramUnauthorizedError):
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


async def test_long_polling_passes_by(api: BotApi, bot: Bot, recording: Recording) -> None:
    recording.breaker.force_open()
    recording.events()
    assert await bot.get_updates() == []
    api.answers.append(UNAUTHORIZED)
    with pytest.raises(TelegramUnauthorizedError):
        await bot.get_updates()
    assert recording.events() == []


async def test_what_passes_by_can_be_chosen(api: BotApi, plain_bot: Bot, recording: Recording) -> None:
    plain_bot.session.middleware(CircuitBreakerMiddleware(recording.breaker, passing_by={"getMe"}))
    await plain_bot.get_me()
    await plain_bot.get_updates()
    assert only(recording.events()).operation == "getUpdates"


async def test_what_an_error_means_can_be_chosen(api: BotApi, plain_bot: Bot, recording: Recording) -> None:
    table = AIOGRAM | {TelegramForbiddenError: Category.PERMANENT}
    plain_bot.session.middleware(CircuitBreakerMiddleware(recording.breaker, failures=table))
    api.always = BLOCKED
    with pytest.raises(TelegramForbiddenError):
        await send(plain_bot)
    assert recording.breaker.state.state is CircuitState.OPEN


async def test_bots_that_share_a_session_have_breakers_of_their_own(
    api: BotApi, plain_bot: Bot, session: AiohttpSession, recording: Recording
) -> None:
    other = Bot(OTHER_TOKEN, session)
    session.middleware(CircuitBreakerMiddleware(guard_of=lambda bot: recording.registry.get_breaker(bot.id)))
    api.answers.append(UNAUTHORIZED)
    with pytest.raises(TelegramUnauthorizedError):
        await send(plain_bot)
    with pytest.raises(CircuitBreakerOpenError) as caught:
        await send(plain_bot)
    assert caught.value.user_id == plain_bot.id
    await send(other)
    assert [request.token for request in api.received] == [TOKEN, OTHER_TOKEN]


@pytest.mark.parametrize("both", [True, False])
def test_a_middleware_needs_either_a_guard_or_what_gives_one(recording: Recording, both: bool) -> None:
    given: dict[str, Any] = {"guard": recording.breaker, "guard_of": lambda _bot: recording.breaker}
    with pytest.raises(TypeError, match="either one guard"):
        CircuitBreakerMiddleware(**given if both else {})


@pytest.fixture
def guard(plain_bot: Bot, recording: Recording) -> CallingAgain:
    guard = CallingAgain(recording.breaker)
    plain_bot.session.middleware(CircuitBreakerMiddleware(guard))
    return guard


async def test_a_guard_that_tries_again_sends_the_same_again(
    api: BotApi, plain_bot: Bot, guard: CallingAgain, recording: Recording
) -> None:
    api.answers.append(SERVER_ERROR)
    message = await send(plain_bot)
    assert message.text == "hi"
    assert guard.asked == [{"operation": "sendMessage", "chat_id": CHAT, "repeatable": True}]
    assert api.received[0] == api.received[1]
    attempts = [(event.kind, event.attempt) for event in recording.events() if isinstance(event, Outcome)]
    assert attempts == [(Kind.FAILURE, None), (Kind.SUCCESS, 2)]


async def test_what_was_done_and_is_told_in_unknown_words_is_a_success_and_not_sent_again(
    api: BotApi, plain_bot: Bot, guard: CallingAgain, recording: Recording
) -> None:
    api.answers.append(Answer(200, {"ok": True, "result": {"message_uuid": "newer than this aiogram"}}))
    with pytest.raises(ClientDecodeError, match="Failed to deserialize object") as caught:
        await send(plain_bot)
    assert isinstance(caught.value.original, ValidationError)
    assert api.methods == ["sendMessage"]
    assert only(recording.events()).kind is Kind.SUCCESS


async def test_a_bots_instance_tries_again(api: BotApi, plain_bot: Bot, recording: Recording) -> None:
    fleet = BotFleet(recording.registry, retries=RetryPolicy(first_pause_seconds=0))
    instance = fleet.get_instance(UserBotCredentials(USER, TOKEN))
    plain_bot.session.middleware(CircuitBreakerMiddleware(instance))
    api.answers += [BAD_GATEWAY, BLOCKED]
    with pytest.raises(TelegramForbiddenError):
        await send(plain_bot)
    assert api.methods == ["sendMessage", "sendMessage"]


async def test_a_method_without_a_chat_names_none_to_the_guard(plain_bot: Bot, guard: CallingAgain) -> None:
    await plain_bot.delete_my_commands()
    assert guard.asked == [{"operation": "deleteMyCommands", "chat_id": None, "repeatable": True}]


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large.txt"
    path.write_bytes(LARGE)
    return path


async def test_files_that_can_be_read_again_are_sent_again(
    api: BotApi, plain_bot: Bot, guard: CallingAgain, large_file: Path
) -> None:
    api.answers += [SERVER_ERROR, SUCCESS, CUT]
    buffered, on_disk = BufferedInputFile(b"in memory", "a.txt"), FSInputFile(large_file)
    await plain_bot.send_document(CHAT, buffered, thumbnail=on_disk)
    await plain_bot.send_media_group(CHAT, [InputMediaPhoto(media=buffered), InputMediaPhoto(media=on_disk)])
    assert len(api.received) == 4
    for request in api.received:
        assert sorted(request.files.values()) == [b"in memory", LARGE]


async def test_a_file_from_an_address_is_fetched_again(
    api: BotApi, plain_bot: Bot, guard: CallingAgain
) -> None:
    api.answers.append(SERVER_ERROR)
    await plain_bot.send_photo(CHAT, URLInputFile(f"{api.url}/file/bot{TOKEN}/a/path", filename="a.jpg"))
    sent = [list(request.files.values()) for request in api.received if request.method == "sendPhoto"]
    assert sent == [[b"a/path"], [b"a/path"]]


@pytest.mark.parametrize("is_nested", [False, True])
async def test_a_file_that_may_not_be_read_again_is_sent_once(
    api: BotApi, plain_bot: Bot, guard: CallingAgain, is_nested: bool
) -> None:
    api.answers.append(SERVER_ERROR)
    file = OnceOnlyFile([b"once"])
    with pytest.raises(TelegramServerError):
        if is_nested:
            await plain_bot.send_media_group(CHAT, [InputMediaDocument(media="id", thumbnail=file)])
        else:
            await plain_bot.send_document(CHAT, file)
    assert [list(request.files.values()) for request in api.received] == [[b"once"]]


async def test_a_method_that_a_handler_returns_goes_through_the_breaker(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    dispatcher = Dispatcher()

    @dispatcher.message()
    async def answer(message: Message) -> SendMessage:
        return message.answer("hi")

    chat = Chat(id=CHAT, type="private")
    update = Update(
        update_id=1, message=Message(message_id=1, date=datetime.now(UTC), chat=chat, text="hello")
    )
    method = await dispatcher.feed_update(bot, update)
    assert isinstance(method, SendMessage)
    await dispatcher.silent_call_request(bot, method)
    assert only(recording.events()).operation == "sendMessage"
    recording.breaker.force_open()
    with pytest.raises(CircuitBreakerOpenError):
        await bot(method)
    assert len(api.received) == 1


async def test_a_bot_polls_on_while_its_breaker_is_open(api: BotApi, bot: Bot, recording: Recording) -> None:
    await bot.me()
    recording.breaker.force_open()
    api.answers.append(SUCCESS)
    api.always = SILENCE
    polling = asyncio.create_task(Dispatcher().start_polling(bot, handle_signals=False))
    await api.wait_for(3)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    assert api.methods == ["getMe", "getUpdates", "getUpdates"]


async def test_a_bot_whose_breaker_is_open_starts_to_poll(
    api: BotApi, bot: Bot, recording: Recording
) -> None:
    recording.breaker.force_open()
    api.answers.append(SUCCESS)
    api.always = SILENCE
    polling = asyncio.create_task(Dispatcher().start_polling(bot, handle_signals=False))
    await api.wait_for(2)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    assert api.methods == ["getMe", "getUpdates"]
