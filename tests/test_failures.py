"""What the tables say of the clients that are installed."""

from __future__ import annotations

import importlib
import json
import ssl
from datetime import timedelta
from types import ModuleType
from typing import Any

import aiogram
import aiogram.exceptions
import aiohttp
import httpx
import pytest
import requests
import requests.exceptions
import telegram.error
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.methods import SendMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from breaker_store import failures
from breaker_store.core.policy import error_name
from breaker_store.failures import (
    AIOGRAM,
    AIOHTTP,
    HTTP,
    HTTPX,
    KNOWN_CLIENTS,
    PYTHON_TELEGRAM_BOT,
    REQUESTS,
    Category,
    ErrorReading,
    FailureTable,
)

TRANSIENT, DECLINED, PERMANENT = Category.TRANSIENT, Category.DECLINED, Category.PERMANENT
RATE_LIMITED, UNKNOWN = Category.RATE_LIMITED, Category.UNKNOWN

METHOD = SendMessage(chat_id=5, text="hello")
ADDRESS = "https://api.example.com/sendMessage"

TABLES = {name: table for name, table in vars(failures).items() if isinstance(table, FailureTable)}
NAMES = {name for table in TABLES.values() for name in table.meanings if isinstance(name, str)}
CLASS_NAMES = sorted(NAMES - {"4xx", "5xx"})

# Whenever such an error is made, python-telegram-bot says that its wait will be told as a timedelta one day.
pytestmark = pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_name_is_that_of_a_class_that_is_there(name: str) -> None:
    module, _, qualified_name = name.rpartition(".")
    found = getattr(importlib.import_module(module or "builtins"), qualified_name)
    assert issubclass(found, BaseException)
    assert error_name(found) == name


def test_the_table_of_all_clients_says_what_each_of_them_says() -> None:
    merged: dict[Any, Any] = {}
    for table in TABLES.values():
        for key, meaning in table.meanings.items():
            assert merged.setdefault(key, meaning) == meaning, key
    assert merged == KNOWN_CLIENTS.meanings


def categories(module: ModuleType, table: FailureTable, parent: type = Exception) -> dict[str, Category]:
    """Give what each of the errors means that a module names."""
    errors = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, parent) and not issubclass(value, Warning)
    }
    return {name: table.read(each.__new__(each)).category for name, each in errors.items()}


def test_every_error_of_aiogram_is_judged() -> None:
    assert categories(aiogram.exceptions, AIOGRAM) == {
        "ClientDecodeError": TRANSIENT,
        "RestartingTelegram": TRANSIENT,
        "TelegramNetworkError": TRANSIENT,
        "TelegramServerError": TRANSIENT,
        "TelegramRetryAfter": RATE_LIMITED,
        "TelegramUnauthorizedError": PERMANENT,
        "TelegramBadRequest": DECLINED,
        "TelegramConflictError": DECLINED,
        "TelegramEntityTooLarge": DECLINED,
        "TelegramForbiddenError": DECLINED,
        "TelegramMigrateToChat": DECLINED,
        "TelegramNotFound": DECLINED,
        # Parents, and an answer that aiogram has no class for.
        "AiogramError": UNKNOWN,
        "DetailedAiogramError": UNKNOWN,
        "TelegramAPIError": UNKNOWN,
        # Mistakes in the bot's own code, which no call raises.
        "CallbackAnswerException": UNKNOWN,
        "DataNotDictLikeError": UNKNOWN,
        "SceneException": UNKNOWN,
        "UnsupportedKeywordArgument": UNKNOWN,
    }


def test_every_error_of_python_telegram_bot_is_judged() -> None:
    assert categories(telegram.error, PYTHON_TELEGRAM_BOT) == {
        "NetworkError": TRANSIENT,
        "TimedOut": TRANSIENT,
        "RetryAfter": RATE_LIMITED,
        "InvalidToken": PERMANENT,
        "BadRequest": DECLINED,
        "ChatMigrated": DECLINED,
        "Conflict": DECLINED,
        "EndPointNotFound": DECLINED,
        "Forbidden": DECLINED,
        # The parent, and an answer that is no JSON.
        "TelegramError": UNKNOWN,
        # Of what was received, not of a call.
        "PassportDecryptionError": UNKNOWN,
    }


def test_every_error_of_a_request_with_httpx_is_judged() -> None:
    found = categories(httpx, HTTPX, httpx.HTTPError)
    declined = {"LocalProtocolError", "TooManyRedirects", "UnsupportedProtocol"}
    # Parents, and the error whose status tells, which has none here.
    unknown = {"HTTPError", "HTTPStatusError", "RequestError"}
    assert {name for name, category in found.items() if category is DECLINED} == declined
    assert {name for name, category in found.items() if category is UNKNOWN} == unknown
    assert {name for name, category in found.items() if category is RATE_LIMITED} == {"PoolTimeout"}
    assert {found[name] for name in found.keys() - declined - unknown - {"PoolTimeout"}} == {TRANSIENT}
    assert HTTPX.read(httpx.InvalidURL("no")).category is DECLINED


def test_every_error_of_aiohttps_client_is_judged() -> None:
    found = categories(aiohttp.client_exceptions, AIOHTTP, aiohttp.ClientError)
    declined = {
        "InvalidURL", "InvalidUrlClientError", "InvalidUrlRedirectClientError", "NonHttpUrlClientError",
        "NonHttpUrlRedirectClientError", "RedirectClientError", "TooManyRedirects",
    }  # fmt: skip
    by_status = {"ClientResponseError", "ContentTypeError", "WSServerHandshakeError"}
    assert {name for name, category in found.items() if category is DECLINED} == declined
    assert {name for name, category in found.items() if category is UNKNOWN} == by_status
    assert {found[name] for name in found.keys() - declined - by_status} == {TRANSIENT}


def test_every_error_of_requests_is_judged() -> None:
    found = categories(requests.exceptions, REQUESTS, requests.RequestException)
    assert {name for name, category in found.items() if category is DECLINED} == {
        "InvalidHeader", "InvalidProxyURL", "InvalidSchema", "InvalidURL", "MissingSchema", "TooManyRedirects",
        "URLRequired",
    }  # fmt: skip
    assert {name for name, category in found.items() if category is UNKNOWN} == {
        "HTTPError", "InvalidJSONError", "JSONDecodeError", "RequestException", "StreamConsumedError",
        "UnrewindableBodyError",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (TimeoutError(), TRANSIENT),
        (ConnectionResetError(), TRANSIENT),
        (BrokenPipeError(), TRANSIENT),
        (ssl.SSLCertVerificationError(), TRANSIENT),
        (FileNotFoundError(), UNKNOWN),
        (ValueError(), UNKNOWN),
    ],
)
def test_the_networks_errors_of_python_itself_are_transient(error: Exception, category: Category) -> None:
    for table in TABLES.values():
        if table is not failures.EVERY_ERROR:
            assert table.read(error).category is category


BY_STATUSES = [
    (400, ErrorReading(DECLINED, "http.BadRequest")),
    (401, ErrorReading(PERMANENT, "http.Unauthorized")),
    (403, ErrorReading(DECLINED, "http.Forbidden")),
    (404, ErrorReading(DECLINED, "http.NotFound")),
    (408, ErrorReading(TRANSIENT, "http.RequestTimeout")),
    (425, ErrorReading(TRANSIENT, "http.TooEarly")),
    (429, ErrorReading(RATE_LIMITED, "http.TooManyRequests", 7.0)),
    (500, ErrorReading(TRANSIENT, "http.InternalServerError")),
    (503, ErrorReading(TRANSIENT, "http.ServiceUnavailable", 7.0)),
    (520, ErrorReading(TRANSIENT, "http.Status520")),
]


def headers_of(status: int) -> dict[str, str]:
    return {"retry-after": "7"} if status in {429, 503} else {}


def error_of_httpx(status: int) -> Exception:
    request = httpx.Request("POST", ADDRESS)
    answer = httpx.Response(status, headers=headers_of(status), request=request)
    with pytest.raises(httpx.HTTPStatusError) as raised:
        answer.raise_for_status()
    return raised.value


def error_of_requests(status: int) -> Exception:
    answer = requests.Response()
    answer.status_code = status
    answer.headers.update(headers_of(status))
    with pytest.raises(requests.HTTPError) as raised:
        answer.raise_for_status()
    return raised.value


def error_of_aiohttp(status: int, error_type: type[aiohttp.ClientResponseError]) -> Exception:
    headers = CIMultiDictProxy(CIMultiDict(headers_of(status)))
    request = aiohttp.RequestInfo(URL(ADDRESS), "POST", CIMultiDictProxy(CIMultiDict()), URL(ADDRESS))
    return error_type(request, (), status=status, message="no", headers=headers)


@pytest.mark.parametrize(("status", "reading"), BY_STATUSES)
def test_an_error_that_carries_a_status_is_read_by_it(status: int, reading: ErrorReading) -> None:
    assert HTTPX.read(error_of_httpx(status)) == reading
    assert REQUESTS.read(error_of_requests(status)) == reading
    assert AIOHTTP.read(error_of_aiohttp(status, aiohttp.ClientResponseError)) == reading
    assert KNOWN_CLIENTS.read(error_of_aiohttp(status, aiohttp.ContentTypeError)) == reading
    assert HTTP.read(failures.BadAnswer(None, status, {"Retry-After": "7"}))[:2] == reading[:2]


def test_an_answer_that_is_well_but_cannot_be_read_keeps_the_name_of_its_error() -> None:
    assert AIOHTTP.read(error_of_aiohttp(200, aiohttp.ContentTypeError)) == ErrorReading(UNKNOWN)


def test_a_proxys_status_says_nothing_of_the_bot() -> None:
    refused = error_of_aiohttp(401, aiohttp.ClientHttpProxyError)
    assert AIOHTTP.read(refused) == ErrorReading(TRANSIENT)


def error_of_aiogram(status: int, body: str) -> Exception:
    """Have aiogram read an answer of Telegram's."""
    bot = aiogram.Bot("1:A" + "a" * 34)
    with pytest.raises(aiogram.exceptions.AiogramError) as raised:
        AiohttpSession().check_response(bot, METHOD, status, body)
    return raised.value


def body_of(status: int, description: str, **parameters: int) -> str:
    return json.dumps(
        {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    )


@pytest.mark.parametrize(
    ("status", "body", "reading"),
    [
        (400, body_of(400, "Bad Request: message is too long"), ErrorReading(DECLINED)),
        (400, body_of(400, "Bad Request: upgraded", migrate_to_chat_id=-1001), ErrorReading(DECLINED)),
        (401, body_of(401, "Unauthorized"), ErrorReading(PERMANENT)),
        (403, body_of(403, "Forbidden: bot was blocked by the user"), ErrorReading(DECLINED)),
        (404, body_of(404, "Not Found"), ErrorReading(DECLINED)),
        (409, body_of(409, "Conflict: terminated by other getUpdates request"), ErrorReading(DECLINED)),
        (413, body_of(413, "Request Entity Too Large"), ErrorReading(DECLINED)),
        (
            429,
            body_of(429, "Too Many Requests: retry after 7", retry_after=7),
            ErrorReading(RATE_LIMITED, None, 7.0),
        ),
        (500, body_of(500, "Internal Server Error: restart"), ErrorReading(TRANSIENT)),
        (502, body_of(502, "Bad Gateway"), ErrorReading(TRANSIENT)),
        (502, "<html><h1>502 Bad Gateway</h1></html>", ErrorReading(TRANSIENT)),
        (406, body_of(406, "Not Acceptable"), ErrorReading(UNKNOWN)),
    ],
)
async def test_what_aiogram_makes_of_telegrams_answers_is_read(
    status: int, body: str, reading: ErrorReading
) -> None:
    assert AIOGRAM.read(error_of_aiogram(status, body)) == reading


@pytest.mark.parametrize("as_timedelta", [False, True])
def test_python_telegram_bots_wait_is_read_in_whichever_way_it_is_told(
    monkeypatch: pytest.MonkeyPatch, as_timedelta: bool
) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", str(as_timedelta).lower())
    error = telegram.error.RetryAfter(timedelta(seconds=7))
    assert isinstance(error.retry_after, timedelta) is as_timedelta
    assert PYTHON_TELEGRAM_BOT.read(error) == ErrorReading(RATE_LIMITED, None, 7.0)


def test_some_of_a_table_is_changed_by_what_stands_behind_it() -> None:
    table = AIOGRAM | {aiogram.exceptions.TelegramForbiddenError: PERMANENT, 404: TRANSIENT}
    assert table.read(error_of_forbidden()).category is PERMANENT
    assert AIOGRAM.read(error_of_forbidden()).category is DECLINED
    assert table.read(failures.BadAnswer(None, 404)).category is TRANSIENT


def error_of_forbidden() -> Exception:
    return aiogram.exceptions.TelegramForbiddenError(METHOD, "Forbidden: bot was blocked by the user")
