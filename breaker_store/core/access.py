"""Who may do what through the admin API, and what an access token is.

A token is `bs_<id>_<secret>`. The id is public: it is what a token is looked up by, and what a log may show. The secret is
256 random bits, of which only a hash is kept. A plain SHA-256 does: slow hashes protect what people choose, and can be
guessed; of these bits nothing can.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SECRET_BYTES: Final = 32
PUBLIC_ID_BYTES: Final = 6

NAME_RULE: Final = "1 to 64 letters, digits and . _ @ + -, and begins with a letter or digit"

# No more than what can be told apart, stands on one line, and is never taken for a secret or markup.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_TOKEN: Final = re.compile(r"bs_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Role(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    """Read."""

    OPERATOR = "operator"
    """Read, and act."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who is known.

    Attributes:
        name: the actor of what is done, as the log will have it: cleaned, and cut at 2,000 characters.
        role: what is allowed.

    """

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token as it is kept.

    Attributes:
        seconds_left: how long it holds from when it was looked up; None for ever.

    """

    public_id: str
    secret_hash: bytes
    principal: Principal
    seconds_left: float | None


# What is compared with a token that isn't known, so that this takes no less time. Nothing has this hash.
_NOBODY: Final = AccessToken("", bytes(32), Principal("nobody", Role.VIEWER), 0.0)


def is_token_name(text: str) -> bool:
    """Tell whether a text may be a token's name: see `NAME_RULE`."""
    return _NAME.fullmatch(text) is not None


def write_token(public_id: str, secret: str) -> str:
    return f"bs_{public_id}_{secret}"


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def read_public_id(text: str) -> str | None:
    """Give the part of a token that may be shown; None for what is no token."""
    match = _TOKEN.fullmatch(text)
    return None if match is None else match[1]


def find_token(tokens: Mapping[str, AccessToken], text: str) -> AccessToken | None:
    """Find the token that a text is, among those with an id, in a time that tells nothing of them."""
    match = _TOKEN.fullmatch(text)
    public_id, secret = ("", "") if match is None else match.groups()
    token = tokens.get(public_id, _NOBODY)
    is_same = hmac.compare_digest(hash_secret(secret), token.secret_hash)
    return token if is_same and token is not _NOBODY else None
