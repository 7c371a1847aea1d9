"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from breaker_store.bots import BotFleet
from breaker_store.testing import memory_store

README = Path(__file__).parents[1] / "README.md"


BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


class Client:
    async def send_message(self, chat_id: int, text: str) -> str:
        return f"sent {text!r} to {chat_id}"


async def run(block: str, **names: Any) -> None:
    """Run a block in an asynchronous function that knows these names."""
    exec(f"async def example():\n{textwrap.indent(block, '    ')}", names)  # noqa: S102 - it is our own
    await names["example"]()


def block_with(text: str) -> str:
    (block,) = (each for each in BLOCKS if text in each)
    return block


@pytest.mark.parametrize("text", ["bot.rate_limited_request(", "from aiogram.exceptions import"])
async def test_the_examples_of_a_bot_run(text: str) -> None:
    async with memory_store() as store:
        await run(block_with(text), store=store, client=Client(), token="token", BotFleet=BotFleet)


async def test_the_old_registrys_import_is_there() -> None:
    await run(block_with("    get_circuit_breaker_registry,\n)"))


@pytest.fixture
def home() -> Iterator[Path]:
    """Make a home that the server's account may enter, also when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="readme-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_first_example_runs_as_it_stands_in_the_readme(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[0]],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sent 'hi' to 1\n", "")
