"""Each process leaves in the log how its recording goes, and nothing that goes wrong with that disturbs anything else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from breaker_store.errors import LedgerError
from breaker_store.ports import RecorderReport
from breaker_store.runtime.reporting import GOODBYE_SECONDS, REPORT_INTERVAL_SECONDS, Reporter
from breaker_store.settings import Durability
from tests.runtime.driving import SECOND, START
from tests.runtime.recorders import LeapingLoop, Process, RuledLog, pass_time, recording

LOOP = LeapingLoop


@asynccontextmanager
async def reporting(process: Process) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(Reporter(process.recorder, process.log).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def last_report(process: Process) -> RecorderReport:
    (report,) = process.log.reports.values()
    return report


async def test_a_report_says_who_records_and_how_it_goes(log: RuledLog, tmp_path: Path) -> None:
    log.correction = 3_600 * SECOND
    async with recording(log, tmp_path / "spool", Durability.JOURNALED) as process, reporting(process):
        await process.call(3)
        await process.recorder.flush()
        await pass_time(REPORT_INTERVAL_SECONDS + 1)
        assert last_report(process) == RecorderReport(
            writer_id=process.journal.writer_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=START + 3_600 * SECOND,
            durability="journaled",
            queued=0,
            flushed=3,
            spooled=0,
            set_aside=0,
            lost=0,
            lost_why=None,
            oldest_waiting_us=None,
            last_error=None,
            ended=False,
        )


async def test_reports_come_at_once_and_then_every_few_seconds(log: RuledLog) -> None:
    async with recording(log) as process, reporting(process):
        for flushed in range(5):
            await pass_time(0.1)
            assert last_report(process).flushed == flushed
            await process.call(1)
            await pass_time(REPORT_INTERVAL_SECONDS - 0.2)
            assert last_report(process).flushed == flushed
            await pass_time(0.1)


async def test_a_report_tells_of_trouble_when_the_log_is_back(log: RuledLog, tmp_path: Path) -> None:
    async with recording(log, tmp_path / "spool") as process, reporting(process) as task:
        await pass_time(1)
        log.is_away = True
        await process.call(60, seconds_apart=1)
        assert last_report(process).last_error is None
        log.hold()
        log.is_away = False
        await pass_time(REPORT_INTERVAL_SECONDS + 1)
        report = last_report(process)
        assert report.queued + report.spooled == 60
        assert report.last_error == "the log is away"
        assert report.oldest_waiting_us is not None
        assert report.oldest_waiting_us > 59 * SECOND
        assert not task.done()


async def test_the_last_report_says_that_the_recorder_has_ended_and_what_it_left(
    log: RuledLog, tmp_path: Path
) -> None:
    async with recording(log, tmp_path / "spool") as process:
        reporter = Reporter(process.recorder, log)
        await process.call(3)
        await process.recorder.flush()
        log.hold()
        await process.call(2)
        await process.close(1)
        await reporter.say_goodbye()
        report = last_report(process)
        assert (report.ended, report.flushed, report.queued, report.spooled) == (True, 3, 0, 2)


async def test_the_last_report_does_not_hold_up_the_end_for_long(log: RuledLog) -> None:
    class LogThatNeverAnswers(RuledLog):
        async def report(self, report: RecorderReport) -> None:
            await asyncio.get_running_loop().create_future()

    loop = asyncio.get_running_loop()
    async with recording(LogThatNeverAnswers()) as process:
        began = loop.time()
        await Reporter(process.recorder, process.log).say_goodbye()
        assert loop.time() - began <= GOODBYE_SECONDS + 0.01


@pytest.mark.parametrize("ended", [False, True])
async def test_a_report_that_the_log_refuses_stops_nothing(*, ended: bool) -> None:
    class LogThatRefusesReports(RuledLog):
        asked_to_report = 0

        async def report(self, report: RecorderReport) -> None:
            self.asked_to_report += 1
            raise LedgerError("no")

    log = LogThatRefusesReports()
    async with recording(log) as process:
        if ended:
            await Reporter(process.recorder, log).say_goodbye()
            return
        async with reporting(process) as task:
            await pass_time(10 * REPORT_INTERVAL_SECONDS + 1)
            assert log.asked_to_report == 11
            assert not task.done()
