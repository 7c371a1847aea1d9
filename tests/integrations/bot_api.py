"""A Telegram Bot API server on a real socket, which answers as it is told, in the shapes of the real one.

    async with serving() as api:
        api.answers += [TOO_MANY_REQUESTS, SUCCESS]

Clients take `api.url` in the place of https://api.telegram.org. `python -m tests.integrations.bot_api` serves until it is
ended, in a process of its own, and prints its address.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "123456789:AAE-dGhpcyBpcyBub3QgYSByZWFsIHRva2Vu"
OTHER_TOKEN = "987654321:AAF-dGhpcyBpcyBub3QgYSByZWFsIHRva2Vu"
CHAT = 1001

PASSED_AT = 1_700_000_000
NGINX = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx/1.18.0</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True)
class Answer:
    """What a request is answered: a body of JSON, or a page of a proxy's."""

    status: int
    body: dict[str, Any] | str


SUCCESS, CUT, SILENCE = "success", "cut", "silence"
"""Instead of a prepared answer: what the method gives; the connection closed without a word; nothing, ever."""


def refuse(status: int, description: str, **parameters: int) -> Answer:
    """Make the answer of the API to what it does not do."""
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return Answer(status, {**body, "parameters": parameters} if parameters else body)


UNAUTHORIZED = refuse(401, "Unauthorized")
CHAT_NOT_FOUND = refuse(400, "Bad Request: chat not found")
MIGRATED = refuse(
    400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-1001234567890
)
BLOCKED = refuse(403, "Forbidden: bot was blocked by the user")
NO_SUCH_METHOD = refuse(404, "Not Found")
CONFLICT = refuse(
    409,
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
)
TOO_LARGE = refuse(413, "Request Entity Too Large")
TOO_MANY_REQUESTS = refuse(429, "Too Many Requests: retry after 5", retry_after=5)
SERVER_ERROR = refuse(500, "Internal Server Error")
BAD_GATEWAY = Answer(502, NGINX)


@dataclass(frozen=True)
class Received:
    """A request: whose bot it is of, what it calls, its fields, and the files in it by their fields."""

    token: str
    method: str
    fields: dict[str, str]
    files: dict[str, bytes]


@dataclass
class BotApi:
    """Answers requests. `answers` are given first, one a request; then `always`. What passes meanwhile is done first."""

    url: str = ""
    answers: deque[Answer | str] = field(default_factory=deque)
    always: Answer | str = SUCCESS
    meanwhile: Callable[[], object] = lambda: None
    received: deque[Received] = field(default_factory=lambda: deque(maxlen=1_000))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.received]

    async def wait_for(self, count: int) -> None:
        """Wait until there were so many requests."""
        async with asyncio.timeout(5):
            while len(self.received) < count:
                self.news.clear()
                await self.news.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = await read(request)
        self.received.append(received)
        self.news.set()
        self.meanwhile()
        answer = self.answers.popleft() if self.answers else self.always
        if answer == SILENCE:
            await asyncio.Event().wait()
        if answer == CUT:
            assert request.transport is not None
            request.transport.abort()
        if isinstance(answer, Answer):
            if isinstance(answer.body, str):
                return web.Response(status=answer.status, text=answer.body, content_type="text/html")
            return web.json_response(answer.body, status=answer.status)
        return web.json_response({"ok": True, "result": self.result_of(received)})

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Serve a file, which is its path's name."""
        self.received.append(Received(request.match_info["token"], "", {}, {}))
        return web.Response(body=request.match_info["path"].encode())

    def result_of(self, received: Received) -> Any:
        bot_id = int(received.token.partition(":")[0])
        bot = {"id": bot_id, "is_bot": True, "first_name": "Bot", "username": f"bot_{bot_id}"}
        match received.method:
            case "getMe":
                return bot
            case "getUpdates":
                return []
            case "getFile":
                return {"file_id": "F", "file_unique_id": "f", "file_path": "photos/file_1.jpg"}
            case "sendMediaGroup":
                return [self.message(bot, received)]
            case method if method.startswith("send"):
                return self.message(bot, received)
        return True

    def message(self, bot: dict[str, Any], received: Received) -> dict[str, Any]:
        chat_id = int(received.fields["chat_id"])
        return {
            "message_id": next(self._numbers),
            "from": bot,
            "chat": {"id": chat_id, "first_name": "Ann", "type": "private"},
            "date": PASSED_AT,
            "text": received.fields.get("text", ""),
        }


async def read(request: web.Request) -> Received:
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            files[name] = value.file.read()
        else:
            assert isinstance(value, str)
            fields[name] = value
    return Received(request.match_info["token"], request.match_info["method"], fields, files)


@asynccontextmanager
async def serving() -> AsyncIterator[BotApi]:
    api = BotApi()
    application = web.Application()
    application.router.add_post("/bot{token}/{method}", api.handle)
    application.router.add_get("/file/bot{token}/{path:.*}", api.download)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    api.url = f"http://{host}:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()


async def serve() -> None:
    async with serving() as api:
        print(api.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
