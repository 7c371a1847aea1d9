"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def home() -> Iterator[Path]:
    """Make a home that the server's account may enter, also when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="readme-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_first_example_runs_as_it_stands_in_the_readme(home: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks[0]],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sent 'hi' to 1\n", "")
