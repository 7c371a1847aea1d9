"""A spool in a directory of its own, and processes that use one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from breaker_store.spool import DEFAULT_LIMIT_BYTES, Spool, SpoolWriter
from tests.spool.batches import STARTED, WRITER

Program = Callable[..., "subprocess.Popen[str]"]
Reopen = Callable[..., Spool]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def reopen(directory: Path) -> Iterator[Reopen]:
    """Open the spool, as a new process would after the death of the last one."""
    opened: list[Spool] = []

    def open_again(limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Spool:
        for spool in opened:
            spool.close()
        opened.append(Spool(directory, limit_bytes=limit_bytes))
        return opened[-1]

    yield open_again
    for spool in opened:
        spool.close()


@pytest.fixture
def spool(reopen: Reopen) -> Spool:
    return reopen()


@pytest.fixture
def writer(spool: Spool) -> SpoolWriter:
    return spool.begin(WRITER, STARTED)


@pytest.fixture
def start_program() -> Iterator[Program]:
    """Start Python programs that can be written to and read from; they end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
