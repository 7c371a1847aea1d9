"""Ctrl-C while an event is written costs no other event, wherever it strikes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from breaker_store.spool import SpoolWriter
from tests.spool.batches import batch_of, failed, read_all, seqs, success
from tests.spool.conftest import Reopen
from tests.spool.test_reading_on import write_successes


def write_one(writer: SpoolWriter, seq: int) -> list[int]:
    write_successes(writer, seq, seq)
    return [seq]


def write_two(writer: SpoolWriter, seq: int) -> list[int]:
    writer.write(batch_of(failed(seq), success(seq + 1)))
    return [seq, seq + 1]


class Interrupter:
    """Interrupts after so many steps of the interpreter in the spool's own code."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if "breaker_store/spool" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.steps -= 1
            if self.steps == 0:
                raise KeyboardInterrupt
        return self.trace

    def run(self, write: Callable[[], list[int]]) -> list[int] | None:
        """Give what was written; None if it was interrupted."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            return write()
        except KeyboardInterrupt:
            return None
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("write", [write_one, write_two])
def test_what_was_acknowledged_is_there_wherever_the_process_was_interrupted(
    writer: SpoolWriter, reopen: Reopen, write: Callable[[SpoolWriter, int], list[int]]
) -> None:
    acknowledged = write_one(writer, 1)
    for steps in count(1):
        seq = writer.last_seq + 1
        written = Interrupter(steps).run(lambda seq=seq: write(writer, seq))
        acknowledged += write_one(writer, writer.last_seq + 1)
        if written is not None:
            acknowledged += written
            break
    assert steps > 50
    (left,) = reopen().leftovers()
    found = seqs(read_all(left, limit=100))
    assert found == sorted(set(found))
    assert set(acknowledged) <= set(found)
