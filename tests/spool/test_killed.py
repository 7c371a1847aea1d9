"""A process that is killed while it writes: what it had acknowledged is there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.spool.batches import read_all, seqs
from tests.spool.conftest import Program, Reopen

WRITING = r"""
import os, sys
from pathlib import Path
from breaker_store.spool import Spool
from tests.spool.batches import batch_of, failed, opening, success

spool = Spool(Path(sys.argv[1]), limit_bytes=20 * 20_000)
writer = spool.begin(77, 1_700_000_000_000_000)
seq = 1
while True:
    if seq % 7:
        writer.write_success(seq, 101, seq, 5, 0, 0, "send_message")
    else:
        writer.write(batch_of(failed(seq), opening(seq + 1), *(success(seq + more) for more in range(2, 40))))
        seq += 39
    os.write(1, b"%d\n" % seq)
    seq += 1
"""


@pytest.mark.parametrize("attempt", range(5))
def test_what_was_acknowledged_is_there_after_a_kill(
    directory: Path, start_program: Program, reopen: Reopen, attempt: int
) -> None:
    program = start_program(WRITING, directory)
    assert program.stdout is not None
    lines = [program.stdout.readline() for _ in range(random.Random(attempt).randrange(1, 3_000))]
    program.kill()
    acknowledged = int([*lines, *program.stdout][-1])
    program.wait()
    (left,) = reopen().leftovers()
    found = seqs(read_all(left, limit=500))
    assert found == list(range(1, len(found) + 1))
    assert acknowledged <= len(found)
    assert left.damaged == []
