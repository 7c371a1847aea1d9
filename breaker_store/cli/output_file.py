"""Where an export goes: a file that gets its name when it is whole, or the standard output."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from breaker_store.core.wording import printable
from breaker_store.errors import BreakerStoreError

_STANDARD_OUTPUT: Final = 1

Write: TypeAlias = Callable[[bytes], None]


class OutputError(BreakerStoreError):
    """The output could not be written to its end."""


def is_terminal() -> bool:
    """Tell whether the standard output is one."""
    return os.isatty(_STANDARD_OUTPUT)


@contextmanager
def write_standard_output() -> Iterator[Write]:
    """Write to the standard output, at once; what would steer a terminal does not reach one.

    Raises:
        OutputError: whoever read it has closed it, or the disk is full; what was written is not the whole.

    """
    # Not through `sys.stdout`, which at the end of the process would try again to write what nobody takes.
    if sys.__stdout__ is None:  # its number may by now be that of another file, or of the connection
        raise OutputError("there is no standard output")
    write = _writing_to(_STANDARD_OUTPUT, "the standard output")
    yield (lambda data: write(_harmless(data))) if is_terminal() else write


def _harmless(data: bytes) -> bytes:
    return "\n".join(map(printable, data.decode().split("\n"))).encode()


@contextmanager
def write_file(path: Path, *, overwrite: bool) -> Iterator[Write]:
    """Write a file that is there at the end of the block, if that ends well.

    Otherwise nothing is left of it, and a file that had its name stays as it was. Only a process that is killed
    leaves a part, `.breaker-store-*.part` in the same folder.

    Raises:
        OutputError: it can't be written, or there is a file already, which may not be overwritten.

    """
    target = path.resolve()
    _check_free(target, overwrite=overwrite)
    part = target.with_name(f".breaker-store-{secrets.token_hex(8)}.part")
    with _trouble_with(str(path)):
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if target.exists():
            shutil.copymode(target, part)
        yield _writing_to(descriptor, str(path))
        _check_free(target, overwrite=overwrite)
        with _trouble_with(str(path)):
            os.fsync(descriptor)
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _check_free(target: Path, *, overwrite: bool) -> None:
    # What is no file would be replaced by one: a device, for instance.
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is no file")
    if target.exists() and not overwrite:
        raise OutputError(f"there is a file {target} already; --overwrite replaces it")


def _writing_to(descriptor: int, name: str) -> Write:
    def write(data: bytes) -> None:
        with _trouble_with(name):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    return write


@contextmanager
def _trouble_with(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise OutputError("whoever read the output has closed it: it is not whole") from error
    except OSError as error:
        raise OutputError(f"can't write {name}: {error.strerror}") from error
