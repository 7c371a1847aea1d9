"""Which webhooks there are: a TOML file, read strictly, since a typo in it would be noticed on the day of the outage.

Secrets stand in it, also in addresses: of a webhook nothing is ever shown but its name and its host.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from breaker_store.core.alerting import AlertKind
from breaker_store.errors import ConfigurationError

WEBHOOKS_VARIABLE: Final = "BREAKER_STORE_WEBHOOKS"

DEFAULT_GROUP_SECONDS: Final = 5.0
LONGEST_GROUP_SECONDS: Final = 3_600

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
_KEYS: Final = {"name", "url", "url_env", "secret", "secret_env", "format", "kinds", "group_seconds"}
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
_SECRET_BYTES: Final = range(24, 65)


class Format(StrEnum):
    """What is in a message's body."""

    EVENT = "event"
    CHAT = "chat"
    ALERTMANAGER = "alertmanager"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where messages go, and which.

    Attributes:
        secret: what messages are signed with; None leaves them unsigned.
        kinds: which messages it gets.
        group_seconds: how long what happens is gathered before it is told.

    """

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    format: Format = Format.EVENT
    kinds: frozenset[AlertKind] = frozenset(AlertKind)
    group_seconds: float = DEFAULT_GROUP_SECONDS

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def find_webhooks(path: Path | None, environment: Mapping[str, str] = os.environ) -> list[Webhook]:
    """Read the file that was named, else the environment's; without either there are no webhooks.

    Raises:
        ConfigurationError: it can't be read, or something in it makes no sense.

    """
    return [entry.read() for entry in find_entries(path, environment)]


def find_entries(path: Path | None, environment: Mapping[str, str] = os.environ) -> list[WebhookEntry]:
    """Find the webhooks of the same file, of each as little as is asked for.

    Raises:
        ConfigurationError: the file can't be read, or what is a webhook in it, or which, can't be told.

    """
    named = path or environment.get(WEBHOOKS_VARIABLE) or None
    return [] if named is None else _read_entries(Path(named).expanduser(), environment)


def _read_entries(path: Path, environment: Mapping[str, str]) -> list[WebhookEntry]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # Of a syntax error tomllib tells the place alone.
        raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    tables = document.pop("webhook", [])
    if document:
        raise ConfigurationError(
            f"{path}: {min(document)!r} is no key of this file: webhooks are [[webhook]]"
        )
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"{path}: webhooks are [[webhook]], with two brackets")
    entries = [WebhookEntry(path, number, table, environment) for number, table in enumerate(tables, 1)]
    _refuse_duplicates(path, [entry.name for entry in entries])
    return entries


def _refuse_duplicates(path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigurationError(f"{path}: name: there are two webhooks {name!r}")


class WebhookEntry:
    """One webhook of a file, whose secrets need not be at hand until it is read.

    What is wrong is said with the file and the key; never with what stands there.
    """

    def __init__(
        self, path: Path, number: int, table: dict[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._path = path
        self._place = f"webhook {number}"
        self._table = table
        self._environment = environment
        self.name = self._read_name()
        self._place = f"webhook {self.name!r}"
        for key in sorted(self._table.keys() - _KEYS):
            raise self._wrong(key, "there is no such key")

    def read_host(self) -> str | None:
        """Give the host that its messages go to; None if its address is in an environment that isn't at hand.

        Raises:
            ConfigurationError: there is no address, or it makes no sense.

        """
        variable = self._table.get("url_env")
        if variable is not None and not self._environment.get(str(variable)):
            return None
        return urlsplit(self._read_url()).hostname

    def read(self) -> Webhook:
        """Read the whole of it.

        Raises:
            ConfigurationError: something in it makes no sense, or isn't at hand.

        """
        chosen = self._read_choice("format", Format, Format.EVENT)
        return Webhook(
            self.name,
            self._read_url(),
            self._read_secret(needed=chosen is Format.EVENT),
            chosen,
            self._read_kinds(),
            self._read_group_seconds(),
        )

    def _wrong(self, key: str, trouble: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {self._place}: {key}: {trouble}")

    def _read_name(self) -> str:
        name = self._table.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self._wrong("name", "is needed: 1 to 64 letters, digits, dots, dashes or underscores")
        return name

    def _read_hidden(self, key: str) -> str | None:
        """Read what may stand in the file itself or in a variable that it names."""
        variable = self._table.get(f"{key}_env")
        value = self._table.get(key)
        if variable is not None:
            if value is not None:
                raise self._wrong(key, f"{key} and {key}_env exclude each other")
            value = self._environment.get(str(variable)) or None
            if value is None:
                raise self._wrong(f"{key}_env", f"the environment has no {variable}")
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "is a text")
        return value

    def _read_url(self) -> str:
        url = self._read_hidden("url")
        if url is None:
            raise self._wrong("url", "is needed, or url_env")
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or _UNPRINTABLE.search(url):
            raise self._wrong("url", "is an address that begins with https:// or http://")
        return url

    def _read_secret(self, *, needed: bool) -> str | None:
        secret = self._read_hidden("secret")
        if secret is None:
            if needed:
                raise self._wrong("secret", "is needed, or secret_env: messages are signed with it")
            return None
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except (ValueError, binascii.Error):
            key = b""
        if len(key) not in _SECRET_BYTES:
            raise self._wrong("secret", "is 24 to 64 bytes in base64, as of `openssl rand -base64 32`")
        return secret

    def _read_choice(self, key: str, choices: type[Format], default: Format) -> Format:
        try:
            return choices(self._table.get(key, default))
        except ValueError:
            raise self._wrong(key, f"is one of {', '.join(choices)}") from None

    def _read_kinds(self) -> frozenset[AlertKind]:
        kinds = self._table.get("kinds", list(AlertKind))
        try:
            chosen = frozenset(map(AlertKind, kinds)) if isinstance(kinds, list) else frozenset()
        except (ValueError, TypeError):
            chosen = frozenset()
        if not chosen:
            raise self._wrong("kinds", f"is a list of some of {', '.join(AlertKind)}")
        return chosen

    def _read_group_seconds(self) -> float:
        seconds = self._table.get("group_seconds", DEFAULT_GROUP_SECONDS)
        if type(seconds) not in {int, float} or not 0 <= seconds <= LONGEST_GROUP_SECONDS:
            raise self._wrong("group_seconds", f"is a number from 0 to {LONGEST_GROUP_SECONDS}")
        return float(seconds)
