"""What reaches the log is free of secrets and can always be stored.

The patterns are those of places where bot clients are known to leak: a Telegram bot's token stands in the address of
each request and so in the text of network errors; clients print headers; database errors print connection addresses.
The list can't be complete. It errs on the side of hiding.
"""

from __future__ import annotations

import re

TEXT_LIMIT = 2_000
NAME_LIMIT = 200
GREATEST_ATTEMPT = 2**15 - 1
HIDDEN = "[hidden]"

# What may follow the part of a text that is searched: the head of a secret too short to be known as one.
_DIVIDED_SECRET = 200

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# The value of a named field: a quoted text to its end (with its escapes, or in quotes that are escaped themselves).
_SEPARATOR = r"(\\*['\"]?\s*[:=]\s*|\\*['\"]\s*,\s*)"
_QUOTED = r"b?(?:(?P<quote>['\"])(?:\\.|(?!(?P=quote))[^\\])*|(?P<escaped>\\+['\"])(?:(?!(?P=escaped)).)*)"
_SECRETS: tuple[tuple[re.Pattern[str], str | None], ...] = (
    # A Telegram bot token: the bot's id, a colon, 35 characters (the length is not documented, so more are allowed).
    # In an address the letters "bot" stand right before it.
    (re.compile(r"(?<!\d)\d{6,12}(?::|%3[Aa])[A-Za-z0-9_-]{30,}"), HIDDEN),
    # An access token of ours: somebody may paste one into a reason.
    (re.compile(r"(?<=bs_)[0-9a-f]{12}_[A-Za-z0-9_-]{43}"), HIDDEN),
    # user:password@ in any address.
    (re.compile(r"(?<=://)([^\s:/@'\"]*):[^\s/\"]*@"), rf"\1:{HIDDEN}@"),
    # A header or a field of that name, whether printed as a header, a dict or JSON. Without quotes, up to the end of
    # the line: schemes are many, and some have several words.
    (
        re.compile(rf"(?i)(authorization|cookie){_SEPARATOR}(?:{_QUOTED}|[^\r\n]+)"),
        None,
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            rf"(?i)(api[-_]?key|token|secret|password|passwd|pwd){_SEPARATOR}"
            rf"(?:{_QUOTED}|(?:\[hidden\]|[^\s'\",;&}}\])])+)",
        ),
        None,
    ),
)


def _hide_field(match: re.Match[str]) -> str:
    opening = match["quote"] or match["escaped"] or ""
    return f"{match[1]}{match[2]}{opening}{HIDDEN}"


def _hide_secrets(text: str) -> str:
    for pattern, replacement in _SECRETS:
        text = pattern.sub(_hide_field if replacement is None else replacement, text)
    return text


def is_storable(text: str) -> bool:
    """Tell whether Postgres can store a text: it has neither NUL nor lone surrogates."""
    return _UNSTORABLE.search(text) is None


def clean_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Hide secrets, take out NUL and lone surrogates, which Postgres can't store, and cut to `limit` characters.

    The text is cut to a few times the limit before the search, so that a huge one costs little. Hiding shortens it, so
    that a secret which that cut divides may end up within the limit: the end of a cut text is not trusted.
    """
    searched = _UNSTORABLE.sub("", text[: 4 * limit + 4_000])
    cleaned = _hide_secrets(searched)
    if len(text) > 4 * limit + 4_000:
        cleaned = _hide_secrets(cleaned[:-_DIVIDED_SECRET] + "…")
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def clean_name(name: str) -> str:
    """Do the same for an operation or an error's type: at most 200 characters."""
    return clean_text(name, NAME_LIMIT)


def clean_attempt(attempt: object) -> int | None:
    """Give the number of an attempt as it can be stored: None for a first one, and for what is no number."""
    if not isinstance(attempt, int) or attempt <= 1:
        return None
    return min(attempt, GREATEST_ATTEMPT)
