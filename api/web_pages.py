"""Keeps out what a web page could do behind an operator's back.

A page in a browser on the operator's machine can send requests to the loopback address. Two checks keep it from doing
so, both by what browsers always tell and pages can't forge:

- a request that changes something comes from our own pages, or from no page (the way of Go's `CrossOriginProtection`);
- a request to the loopback address names it, and not a domain whose owner points it there (DNS rebinding).

They come before everything else, the documentation too; and as middleware they cost each request a hundredth of what a
dependency of every route does.
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


class RefuseWebPages:
    """Answers with 403 what a foreign page in a browser asks for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = _why_refused(scope) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        answer = answer_status(Request(scope), HTTPStatus.FORBIDDEN, reason)
        await answer(scope, receive, send)


def _why_refused(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    if scope["method"] not in _READING_METHODS and _is_cross_origin(headers):
        return "a page of another origin may not change anything"
    if _is_loopback(scope.get("server")) and not _names_loopback(headers.get("host")):
        return "on the loopback address, the host must be given as localhost or as an address"
    return None


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
def _is_loopback(server: tuple[str, int | None] | None) -> bool:
    """Tell whether the address on which the request arrived is of this machine alone."""
    try:
        return server is not None and ip_address(server[0]).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=16)
def _names_loopback(host: str | None) -> bool:
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
