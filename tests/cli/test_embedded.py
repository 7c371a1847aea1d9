from __future__ import annotations

from pathlib import Path

from breaker_store.settings import DATA_DIR_VARIABLE

from .conftest import Invoke, outcome, postmaster_pid_file, write_lines


def test_commands_on_a_data_dir(invoke: Invoke, data_dir: Path, tmp_path: Path) -> None:
    """Commands start the embedded database, migrate it by themselves, and leave no server behind."""
    assert "none" in invoke("migrate", "current", "--data-dir", data_dir).stdout
    file = write_lines(tmp_path / "lines", outcome(1, 0))
    assert invoke("import", file, "--format", "ndjson", "--data-dir", data_dir).exit_code == 0
    assert invoke("state", 1, env={DATA_DIR_VARIABLE: str(data_dir)}).exit_code == 0
    assert "up to date" in invoke("migrate", "current", "--data-dir", data_dir).stdout
    assert not postmaster_pid_file(data_dir).exists()
