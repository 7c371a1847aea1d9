"""Actions that are safe from others' in between: `ETag` and `If-Match`, as RFC 9110 has them.

An ETag names the version of a breaker's state: which of its transitions it comes from. It is a strong one, since
`If-Match` compares no others, though what is counted or waited for since then may differ. An action with `If-Match` is
carried out only on that version; `*` takes any. A weak ETag, as a proxy that compresses makes of ours, and one that is none
of ours fit no version: 412. Beside others of that kind one version may be named, and not several: nobody saw two at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Response
from pydantic import AfterValidator, WithJsonSchema

from breaker_store.core.standing import StateVersion

ANY: Final = "*"

_TAG: Final = re.compile('(?:W/)?"[!#-~\x80-\xff]*"')
_TAGS: Final = re.compile(rf"{_TAG.pattern}(?:[ \t]*,[ \t]*{_TAG.pattern})*")

# What no breaker ever is at.
_NONE: Final = StateVersion(-1, 0)

TAGGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            "ETag": {
                "description": "The version of the breaker's state, for `If-Match`; none of what stood at an instant.",
                "schema": {"type": "string"},
            }
        }
    }
}
"""Documents the answers that have an ETag, in the form of a route's `responses`."""


def _check(text: str | None) -> str | None:
    if text is not None:
        _read(text)
    return text


def _read(text: str) -> StateVersion | None:
    if text == ANY:
        return None
    if _TAGS.fullmatch(text) is None:
        raise ValueError('give the ETag of an earlier answer, as in "17-9f00aa12", or *')
    versions = {version for tag in _TAG.findall(text) if (version := _read_tag(tag)) is not None}
    if len(versions) > 1:
        raise ValueError("give the one ETag that was seen, and not several")
    return versions.pop() if versions else _NONE


def _read_tag(tag: str) -> StateVersion | None:
    try:
        return StateVersion.read(tag[1:-1])
    except ValueError:
        return None


_Tags = Annotated[
    str | None,
    AfterValidator(_check),
    WithJsonSchema({"type": "string", "pattern": '^([*]|(W/)?"[!#-~]*")$'}),
]


async def _expected(
    if_match: Annotated[
        _Tags,
        Header(description="Only if the breaker still is at this version: its ETag, or * for any."),
    ] = None,
) -> StateVersion | None:
    return None if if_match is None else _read(if_match)


Expected = Annotated[StateVersion | None, Depends(_expected)]
"""The version that the caller saw; None if they don't care."""


def tag(response: Response, version: StateVersion) -> None:
    """Name the version of the state that an answer is about."""
    response.headers["ETag"] = f'"{version}"'
