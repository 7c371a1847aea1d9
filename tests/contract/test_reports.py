"""Every log keeps what each writer said last of its recording."""

from __future__ import annotations

from dataclasses import replace

from tests.contract.reporting import CALM, TROUBLED
from tests.contract.writing import ReadReport, Writer


async def test_a_report_is_kept_as_it_was_given(writer: Writer, read_report: ReadReport) -> None:
    for report in (CALM, replace(TROUBLED, writer_id=2**63 - 1)):
        await writer.log.report(report)
        assert await read_report(report.writer_id) == report


async def test_a_report_takes_the_place_of_its_writers_last_one_and_of_no_others(
    writer: Writer, read_report: ReadReport
) -> None:
    others = replace(CALM, writer_id=2)
    for report in (TROUBLED, others, CALM):
        await writer.log.report(report)
    assert await read_report(1) == CALM
    assert await read_report(2) == others
    assert await read_report(3) is None


async def test_a_report_that_says_nothing_more_takes_back_what_was_said(
    writer: Writer, read_report: ReadReport
) -> None:
    await writer.log.report(CALM)
    await writer.log.report(TROUBLED)
    assert await read_report(1) == TROUBLED
