r"""The combined log format of web servers (Apache, nginx), and the common one, which lacks the last two fields.

A line of it::

    83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 404 203 "http://from/" "Mozilla/5.0"

Quoted fields have their quotes and backslashes escaped by a backslash; the escapes are kept as they are, since they
keep the text printable. Further fields after the last are passed over.

An outcome's operation is the request's method and path, without the query: the method alone would not tell why a
breaker tripped, and a query makes every request another operation. The site's paths bound how many there are; a
request that is none (what a port scan leaves) has no operation, so that noise adds none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Literal

from breaker_store.importing.formats import ImportedOutcome, check_time, count_microseconds

UserIdFrom = Literal["ipv4", "hash"]

_QUOTED = rb'"((?:[^"\\]++|\\.)*+)"'
# Some servers cut the agent, the last field, and its closing quote with it; but half of a line that was glued to the
# next one is not taken for such, nor one that ends with the opening quote.
_CUT_AGENT = rb'"(?:[^"\\]++|\\.)*+(?<!")'
# Possessive, so that no line takes more than a few passes. The user's name may hold spaces, but no quote or bracket:
# else it could span the rest of a line that was cut, and the beginning of the one glued to it.
_LINE = re.compile(
    rb'(\S++) \S++ (?:"" |[^"\[]++(?<= ))'
    rb"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-](?:[01]\d|2[0-3])[0-5]\d)\] "
    + _QUOTED
    + rb" ([1-9]\d\d) (?:\d++|-)"
    rb"(?: " + _QUOTED + rb" (?:" + _QUOTED + rb"(?: .*+)?|" + _CUT_AGENT + rb"))?\s*+",
    re.DOTALL,
)
_REQUEST = re.compile(rb"([A-Z][A-Z_-]*+) ([^\s?#]++)[^\s]*+ HTTP/\d(?:\.\d)?")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


@dataclass(frozen=True, slots=True)
class CombinedFormat:
    """Parses a line of the combined or common log format.

    Attributes:
        fail_on: the lowest HTTP status that is a failure.
        user_id: where a client that is no IPv4 address gets its user id from: "ipv4" makes its lines bad ones,
            "hash" hashes the client's text to signed 64 bits. An IPv4 address is its integer in both cases, so
            that a client stays the same user.

    """

    fail_on: int = 400
    user_id: UserIdFrom = "ipv4"

    @property
    def format_name(self) -> str:
        return "combined"

    @property
    def closing(self) -> bytes:
        # The common format ends with a size, of which half is a size too.
        return b'"'

    def __call__(self, line: bytes, identity: bytes) -> ImportedOutcome:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError("the line is not in the combined or common log format")
        client, time, request, status = match.group(1, 2, 3, 4)
        failed = int(status) >= self.fail_on
        return ImportedOutcome(
            _find_user_id(client, self.user_id),
            _read_time(time),
            not failed,
            None,
            _find_operation(request),
            f"HTTP {status.decode()}" if failed else None,
            f'"{_decode(request)}" {status.decode()}' if failed else None,
            identity,
        )


@lru_cache(maxsize=1 << 13)
def _find_user_id(client: bytes, user_id: UserIdFrom) -> int:
    try:
        return int(IPv4Address(_decode(client)))
    except ValueError:
        if user_id == "ipv4":
            raise ValueError(
                f"the client {_decode(client)[:100]} is no IPv4 address; see --user-id hash"
            ) from None
        return int.from_bytes(blake2b(client, digest_size=8).digest(), "big", signed=True)


@lru_cache(maxsize=1 << 12)
def _read_time(text: bytes) -> int:
    """Read a time like 17/May/2015:10:05:03 +0000; `strptime` would take ten times as long, and follow the locale."""
    if text[3:6] not in _MONTHS:
        raise ValueError(f"there is no month {_decode(text[3:6])}")
    month = _MONTHS.index(text[3:6]) + 1
    day, year, hour, minute, second = (
        int(text[a:b]) for a, b in ((0, 2), (7, 11), (12, 14), (15, 17), (18, 20))
    )
    offset = timedelta(hours=int(text[22:24]), minutes=int(text[24:26]))
    local = count_microseconds(datetime(year, month, day, hour, minute, second, tzinfo=UTC))
    offset_us = offset // timedelta(microseconds=1)
    return check_time(local + offset_us if text[21:22] == b"-" else local - offset_us)


@lru_cache(maxsize=1 << 13)
def _find_operation(request: bytes) -> str | None:
    match = _REQUEST.fullmatch(request)
    return f"{_decode(match[1])} {_decode(match[2])}" if match else None


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
