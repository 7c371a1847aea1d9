"""What happened in one plain sentence, as chats show it.

Error texts come from outside. In a chat they must neither call everybody (`@channel`, `<!here>`) nor draw links and
markup, so what could do that is replaced by what looks alike. They are short, and on one line.
"""

from __future__ import annotations

from typing import Final

from breaker_store.core.alerting import AlertKind, Group, Notice
from breaker_store.core.wording import span

USERS_NAMED: Final = 5
"""How many users a sentence names at most."""

_TEXT_LIMIT: Final = 200
_SECOND_US: Final = 1_000_000
_LOOK_ALIKES: Final = str.maketrans("<>@[]`", "‹›＠()'")  # noqa: RUF001 - that is what they are for

_VERBS: Final = {
    AlertKind.TRIPPED: "tripped",
    AlertKind.RECOVERED: "recovered",
    AlertKind.FORCED_OPEN: "was forced open",
    AlertKind.SUSPENDED: "was suspended",
}
_VERBS_OF_MANY: Final = _VERBS | {
    AlertKind.FORCED_OPEN: "were forced open",
    AlertKind.SUSPENDED: "were suspended",
}


def describe_group(group: Group) -> str:
    """Say what a message tells."""
    return _describe_one(group.notices[0]) if len(group.notices) == 1 else _describe_many(group)


def _describe_one(notice: Notice) -> str:
    at_once = " at once" if notice.tripped_at_once else ""
    subject = f"The breaker of user {notice.user_id} {_VERBS[notice.kind]}{at_once}"
    return f"{subject}{_duration_of(notice)}{_by(notice)}{_because(notice)}."


def _describe_many(group: Group) -> str:
    first, last = group.notices[0], group.notices[-1]
    length_us = max(0, last.at - first.at)
    users = ", ".join(str(notice.user_id) for notice in group.notices[:USERS_NAMED])
    more = len(group.notices) - USERS_NAMED
    named = f"users {users}" + (f" and {more:,} more" if more > 0 else "")
    within = f" within {span(length_us)}" if length_us >= _SECOND_US else " at once"
    cause = f" The first: {one_line(str(first.cause))}." if first.cause else ""
    return (
        f"The breakers of {len(group.notices):,} users {_VERBS_OF_MANY[group.kind]}{within}"
        f"{_error_of(group)}: {named}.{cause}"
    )


def _error_of(group: Group) -> str:
    if group.error is None:
        return ""
    error = one_line(group.error)
    return f" from {error}" if group.kind is AlertKind.RECOVERED else f" with {error}"


def _duration_of(notice: Notice) -> str:
    if not notice.ended:
        return ""
    return f" after {span(max(0, notice.at - notice.ended[0].at))}"


def _by(notice: Notice) -> str:
    return f" by {one_line(notice.actor)}" if notice.actor else ""


def _because(notice: Notice) -> str:
    parts = [one_line(notice.reason)] if notice.reason else []
    if notice.cause:
        which = "" if notice.tripped_at_once else "the last: "
        parts.append(f"{which}{one_line(str(notice.cause))}")
    elif notice.error:
        parts.append(f"it had tripped with {one_line(notice.error)}")
    return f": {', '.join(parts)}" if parts else ""


def one_line(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Give a text from outside as a chat can show it: short, without control characters or markup."""
    # Cut twice: what is huge need not be looked at, and what replaces a character is as long as it.
    visible = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    cleaned = " ".join(visible.split()).translate(_LOOK_ALIKES)
    return cleaned if len(cleaned) <= limit and len(text) <= 4 * limit else cleaned[: limit - 1] + "…"
