from __future__ import annotations

import os
from pathlib import Path

import pytest

from breaker_store.diagnosis.finding import Verdict
from breaker_store.diagnosis.spool_folder import check_spool

GREATEST = 2**62


def verdicts(spool_dir: Path, limit_bytes: int = 1) -> dict[str, Verdict]:
    return {finding.check: finding.verdict for finding in check_spool(spool_dir, limit_bytes)}


def test_an_empty_spool_is_well(tmp_path: Path) -> None:
    assert set(verdicts(tmp_path).values()) == {Verdict.OK}


def test_a_spool_that_is_not_there_is_wrong(tmp_path: Path) -> None:
    assert verdicts(tmp_path / "nowhere") == {"spool": Verdict.WRONG}


def test_a_spool_that_is_not_ours_to_write_is_wrong(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    assert verdicts(tmp_path) == {"spool": Verdict.WRONG}


def test_a_backlog_is_measured(tmp_path: Path) -> None:
    (tmp_path / "0000000000000001-0000000000000001-000001.spool").write_bytes(b"x" * (3 << 20))
    [backlog, *_] = check_spool(tmp_path)
    assert (backlog.verdict, "3.0 MB wait" in backlog.found) == (Verdict.WARNING, True)


def test_a_disk_with_less_room_than_the_spool_may_take_is_a_warning(tmp_path: Path) -> None:
    assert verdicts(tmp_path, GREATEST)["spool's disk"] is Verdict.WARNING


def test_what_was_set_aside_is_counted(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "1-1-2.jsonl").touch()
    *_, aside = check_spool(tmp_path)
    assert (aside.verdict, "1 file" in aside.found) == (Verdict.WARNING, True)
