"""What the errors of each client mean by default; see `Category` for what comes of it.

To change some of it, put what differs behind the table::

    AIOGRAM | {TelegramForbiddenError: Category.PERMANENT}

The names are those of the versions that the tests run with; what a client renames is an unknown error until then.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from breaker_store.core.failures import (
    BY_STATUS,
    EVERY_ERROR,
    BadAnswer,
    Category,
    ErrorReading,
    FailureTable,
)

__all__ = [
    "AIOGRAM",
    "AIOHTTP",
    "BY_STATUS",
    "EVERY_ERROR",
    "HTTP",
    "HTTPX",
    "KNOWN_CLIENTS",
    "PYTHON_TELEGRAM_BOT",
    "REQUESTS",
    "STATUSES",
    "BadAnswer",
    "Category",
    "ErrorReading",
    "FailureTable",
]

_TRANSIENT, _PERMANENT = Category.TRANSIENT, Category.PERMANENT
_DECLINED, _RATE_LIMITED = Category.DECLINED, Category.RATE_LIMITED

STATUSES: Final = MappingProxyType(
    {
        401: _PERMANENT,  # the token was revoked
        408: _TRANSIENT,  # the server waited in vain for the request
        425: _TRANSIENT,  # too early
        429: _RATE_LIMITED,
        "4xx": _DECLINED,  # 400 a bad request, 403 blocked by the user, 404 chat not found
        "5xx": _TRANSIENT,
    }
)
"""What the statuses of HTTP mean."""

_NETWORK: Final = {
    "TimeoutError": _TRANSIENT,
    "ConnectionError": _TRANSIENT,
    "socket.gaierror": _TRANSIENT,
    "ssl.SSLError": _TRANSIENT,
}

HTTP: Final = FailureTable({**STATUSES, **_NETWORK})
"""Any client whose answers have a status, and the network's errors of Python itself."""

HTTPX: Final = HTTP | {
    "httpx.TransportError": _TRANSIENT,  # no connection, a time-out, a broken answer
    "httpx.PoolTimeout": _RATE_LIMITED,  # the client has too few connections: other users may have them all
    "httpx.UnsupportedProtocol": _DECLINED,
    "httpx.LocalProtocolError": _DECLINED,
    "httpx.HTTPStatusError": BY_STATUS,
    "httpx.DecodingError": _TRANSIENT,
    "httpx.TooManyRedirects": _DECLINED,
    "httpx.InvalidURL": _DECLINED,
}

AIOHTTP: Final = HTTP | {
    "aiohttp.client_exceptions.ClientError": _TRANSIENT,  # no connection, a time-out, a broken answer
    "aiohttp.client_exceptions.ClientResponseError": BY_STATUS,
    "aiohttp.client_exceptions.ClientHttpProxyError": _TRANSIENT,  # its status is the proxy's
    "aiohttp.client_exceptions.TooManyRedirects": _DECLINED,
    "aiohttp.client_exceptions.RedirectClientError": _DECLINED,
    "aiohttp.client_exceptions.NonHttpUrlClientError": _DECLINED,
    "aiohttp.client_exceptions.InvalidURL": _DECLINED,
}

REQUESTS: Final = HTTP | {
    "requests.exceptions.ConnectionError": _TRANSIENT,
    "requests.exceptions.Timeout": _TRANSIENT,
    "requests.exceptions.ChunkedEncodingError": _TRANSIENT,
    "requests.exceptions.ContentDecodingError": _TRANSIENT,
    "requests.exceptions.RetryError": _TRANSIENT,
    "requests.exceptions.HTTPError": BY_STATUS,
    "requests.exceptions.TooManyRedirects": _DECLINED,
    "requests.exceptions.InvalidURL": _DECLINED,
    "requests.exceptions.InvalidSchema": _DECLINED,
    "requests.exceptions.MissingSchema": _DECLINED,
    "requests.exceptions.URLRequired": _DECLINED,
    "requests.exceptions.InvalidHeader": _DECLINED,
}

AIOGRAM: Final = AIOHTTP | {
    "aiogram.exceptions.TelegramNetworkError": _TRANSIENT,
    "aiogram.exceptions.ClientDecodeError": _TRANSIENT,  # a gateway's page of HTML, whatever its status
    "aiogram.exceptions.TelegramServerError": _TRANSIENT,
    "aiogram.exceptions.RestartingTelegram": _TRANSIENT,
    "aiogram.exceptions.TelegramRetryAfter": _RATE_LIMITED,
    "aiogram.exceptions.TelegramUnauthorizedError": _PERMANENT,
    "aiogram.exceptions.TelegramBadRequest": _DECLINED,
    "aiogram.exceptions.TelegramForbiddenError": _DECLINED,  # blocked by the user
    "aiogram.exceptions.TelegramNotFound": _DECLINED,
    "aiogram.exceptions.TelegramConflictError": _DECLINED,  # somebody else polls with this token
    "aiogram.exceptions.TelegramMigrateToChat": _DECLINED,
    "aiogram.exceptions.TelegramEntityTooLarge": _DECLINED,
}

PYTHON_TELEGRAM_BOT: Final = HTTPX | {
    "telegram.error.NetworkError": _TRANSIENT,  # among them time-outs and 5xx
    "telegram.error.RetryAfter": _RATE_LIMITED,
    "telegram.error.InvalidToken": _PERMANENT,
    "telegram.error.BadRequest": _DECLINED,  # though it is a NetworkError by class
    "telegram.error.Forbidden": _DECLINED,  # blocked by the user
    "telegram.error.EndPointNotFound": _DECLINED,
    "telegram.error.ChatMigrated": _DECLINED,
    "telegram.error.Conflict": _DECLINED,  # somebody else polls with this token
}

KNOWN_CLIENTS: Final = AIOGRAM | PYTHON_TELEGRAM_BOT | REQUESTS
"""All of them at once: no two have the same names."""
