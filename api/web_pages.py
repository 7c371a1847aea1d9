"""Keeps out what a web page could do behind an operator's back.

A page in a browser on the operator's machine can send requests to the loopback address, and where signing in is a
cookie's matter, to any. Two checks keep it from doing so, both by what browsers always tell and pages can't forge:

- a request that changes something comes from our own pages, or from no page (the way of Go's `CrossOriginProtection`);
- a request to the loopback address names it, and not a domain whose owner points it there (DNS rebinding).

The first comes before everything else; and as middleware it costs each request a hundredth of what a dependency of every
route does. The second is asked for by `authentication`, where nobody needs a token: a page has none, and those who have one may
come by any name, through a proxy.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from breaker_store.api.problems import answer_status

_READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


LOOPBACK_RULE: Final = "on the loopback address, the host must be given as localhost or as an address"


class RefuseWebPages:
    """Answers with 403 what a foreign page in a browser wants to change."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_refused(scope):
            await self._app(scope, receive, send)
            return
        reason = "a page of another origin may not change anything"
        answer = answer_status(Request(scope), HTTPStatus.FORBIDDEN, reason)
        await answer(scope, receive, send)


def _is_refused(scope: Scope) -> bool:
    return scope["method"] not in _READING_METHODS and _is_cross_origin(Headers(scope=scope))


def _is_cross_origin(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    # Neither of the two: no browser, or one older than 2020.
    return origin is not None and _host_of(origin) != headers.get("host")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


@lru_cache(maxsize=16)
def is_loopback(server: tuple[str, int | None] | None) -> bool:
    """Tell whether the address on which the request arrived is of this machine alone."""
    try:
        return server is not None and ip_address(server[0]).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=16)
def names_loopback(host: str | None) -> bool:
    """Tell whether a request's host, with its port, is this machine's own name or any address; also if it has none."""
    if host is None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname
        if name is None or name == "localhost" or name.endswith(".localhost"):
            return True
        ip_address(name)
    except ValueError:
        return False
    return True
