"""The operating system's user that owns the data and runs Postgres, which refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breaker_store.embedded.errors import DataDirUnusableError, NoUnprivilegedUserError

_UNPRIVILEGED = "nobody"
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class ServerAccount:
    """A user to run programs as; `switched` says that it is not the one we are."""

    uid: int
    gid: int
    switched: bool

    def run(
        self, *arguments: str | Path, text: str = "", lasting: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with `text` on its standard input; what it starts may outlive us if `lasting`.

        It sees neither the caller's environment, whose secrets and PG* variables are not for it, nor the working
        directory, which it might not be allowed to enter.
        """
        identity: dict[str, Any] = {"user": self.uid, "group": self.gid, "extra_groups": []}
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return subprocess.run(  # noqa: S603 - our own programs
            arguments,
            input=text,
            env=environment | {"LC_ALL": "C", "TZ": "UTC"},
            cwd="/",
            umask=0o077,
            start_new_session=lasting,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            **(identity if self.switched else {}),
        )

    def can(self, operator: str, *paths: Path) -> bool:
        """Say whether `test` with this operator ("-x", "-r") holds for every path: mode bits alone don't tell."""
        if not self.switched:
            return True
        script = 'operator=$1; shift; for path; do test "$operator" "$path" || exit 1; done'
        return self.run("/bin/sh", "-c", script, "sh", operator, *paths).returncode == 0

    def own(self, path: Path) -> None:
        if self.switched:
            os.chown(path, self.uid, self.gid)


def account_for(data: Path) -> ServerAccount:
    """Choose who runs the server: ourselves, or for root the owner of the data, at first `nobody`."""
    own_uid = os.geteuid()
    owner = data.stat() if data.exists() else None
    if own_uid != 0:
        if owner is not None and owner.st_uid != own_uid:
            raise DataDirUnusableError(
                data, f"it belongs to the user with the id {owner.st_uid}, not to {own_uid}"
            )
        return ServerAccount(own_uid, os.getegid(), switched=False)
    account = _unprivileged() if owner is None else ServerAccount(owner.st_uid, owner.st_gid, switched=True)
    _require_switch(account)
    return account


def _unprivileged() -> ServerAccount:
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        raise NoUnprivilegedUserError(
            f"Postgres refuses to run as root, and there is no user `{_UNPRIVILEGED}` to run it as;"
            " start this program as an ordinary user"
        ) from None
    return ServerAccount(entry.pw_uid, entry.pw_gid, switched=True)


def _require_switch(account: ServerAccount) -> None:
    try:
        account.run("/bin/sh", "-c", ":")
    except OSError as error:
        raise NoUnprivilegedUserError(
            f"Postgres refuses to run as root, and this root may not become the user with the id {account.uid}"
            f" ({error.strerror}); start this program as an ordinary user"
        ) from error
