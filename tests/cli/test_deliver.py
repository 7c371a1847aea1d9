"""What a process that will not come back left on its disk is stored by a command."""

from __future__ import annotations

import json
from pathlib import Path

from breaker_store.ports import Batch, OutcomeRow, Source
from breaker_store.spool import Spool

from .conftest import Invoke

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
WRITER, USER = 4_711, 101


def leave_events(folder: Path, count: int) -> None:
    """Leave successes in a spool, as a process that was killed would."""
    rows: list[OutcomeRow] = [
        (START + seq, USER, seq, 10, 0, 0, 1, 0, None, None, None, None, "send", None, None)
        for seq in range(1, count + 1)
    ]
    spool = Spool(folder)
    spool.begin(WRITER, START).write(
        Batch(WRITER, 0, 1, count, Source.LIVE, None, START + 1, START + count, rows)
    )
    spool.close()


def test_events_are_stored_once_under_their_own_numbers(call: Invoke, tmp_path: Path) -> None:
    leave_events(tmp_path, 3)
    assert call("deliver", tmp_path).stdout == "3 events were stored\n"
    assert call("deliver", tmp_path).stdout == "0 events were stored\n"
    lines = call("history", USER, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"{WRITER}-{seq}" for seq in (3, 2, 1)]


def test_what_became_of_the_events_is_told_as_json(call: Invoke, tmp_path: Path) -> None:
    leave_events(tmp_path, 3)
    told = json.loads(call("deliver", tmp_path, "--json").stdout)
    assert told == {"flushed": 3, "set_aside": 0, "lost": 0, "lost_why": None}


def test_damage_is_told(call: Invoke, tmp_path: Path) -> None:
    leave_events(tmp_path, 3)
    (file,) = tmp_path.glob("*.spool")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    result = call("deliver", tmp_path)
    assert result.stdout == "2 events were stored\n"
    assert "1 events could not be read or stored" in result.stderr


def test_a_spool_that_a_process_has_is_left_alone(call: Invoke, tmp_path: Path) -> None:
    leave_events(tmp_path, 3)
    spool = Spool(tmp_path)
    result = call("deliver", tmp_path)
    spool.close()
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
    assert list(tmp_path.glob("*.spool"))


def test_a_folder_that_is_not_there_is_not_made(call: Invoke, tmp_path: Path) -> None:
    result = call("deliver", tmp_path / "mistyped")
    assert (result.exit_code, "there is no spool in" in result.stderr) == (1, True)
    assert not (tmp_path / "mistyped").exists()


def test_nothing_is_lost_where_the_database_is_away(
    invoke: Invoke, tmp_path: Path, unused_tcp_port: int
) -> None:
    leave_events(tmp_path, 3)
    url = f"postgresql://me@127.0.0.1:{unused_tcp_port}/bots"
    assert invoke("deliver", tmp_path, "--database-url", url).exit_code == 1
    assert list(tmp_path.glob("*.spool"))
