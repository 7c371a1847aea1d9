"""What a call has acknowledged is stored, once and in order, whoever is killed. `python -m tests.crash` goes on longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.depth import DEPTH

ROOT = Path(__file__).parents[2]


def crash(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command: its processes are forks of it, and it has no event loop and no threads to fork."""
    command = [sys.executable, "-m", "tests.crash", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_process_that_is_killed_again_and_again_loses_nothing_that_it_journaled(database_url: str) -> None:
    ended = crash("--rounds", 6 * DEPTH, "--durability", "journaled", "--database-url", database_url)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_process_that_is_killed_again_and_again_loses_nothing_that_was_committed(database_url: str) -> None:
    alone = ("--durability", "committed", "--without-spool")
    ended = crash("--rounds", 6 * DEPTH, *alone, "--database-url", database_url)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_process_that_is_killed_while_it_records_behind_loses_its_last_moments_alone(
    database_url: str,
) -> None:
    ended = crash("--rounds", 3 * DEPTH, "--durability", "behind", "--database-url", database_url)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("durability", ["behind", "journaled", "committed"])
def test_a_process_that_is_ended_by_sigterm_loses_nothing(database_url: str, durability: str) -> None:
    ended = crash(
        "--rounds", 2 * DEPTH, "--sigterm", "--durability", durability, "--database-url", database_url
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_postgres_that_is_killed_under_a_process_loses_nothing() -> None:
    ended = crash("--rounds", 2 * DEPTH, "--postmaster", "--durability", "behind")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_process_and_its_postgres_that_are_killed_lose_nothing() -> None:
    ended = crash("--rounds", 2 * DEPTH, "--both", "--durability", "journaled")
    assert ended.returncode == 0, ended.stdout + ended.stderr
