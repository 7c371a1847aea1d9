"""Reads on in a writer's files: each event once, in order, whatever has happened to the files.

Where bytes are no record, the records around them tell how many are missing: each has its number among all, and its
place in its file. What is behind a number that the log has is missing nowhere, so a spool that is read again after part
of it was stored does not count the same damage twice.
"""

from __future__ import annotations

import logging
from typing import Final

from breaker_store.ports import Batch
from breaker_store.spool.damage import DamageReport
from breaker_store.spool.encoding import NOTE, SUCCESS, Decoded
from breaker_store.spool.records import HEAD_SIZE, Prefix, Scan, prefix_of
from breaker_store.spool.segments import Folder, Place, Segment

logger = logging.getLogger(__name__)

DOCUMENT_BYTES: Final = 65_536
"""How much that is no plain success is read at once: documents take their time, which may be an event loop's."""


class Reader:
    """A cursor through the files of one writer, of which new ones come and old ones go.

    Attributes:
        last_seq: of the last event that it came by.
        total: of the last record that it came by; None before the first of a writer that does not live.

    """

    def __init__(self, folder: Folder, writer_id: int, segments: list[Segment]) -> None:
        self.damage = DamageReport(folder.aside)
        self.last_seq = 0
        self.total: int | None = None
        self._folder = folder
        self._writer_id = writer_id
        self._segments = segments
        self._segment: Segment | None = None
        self._scan: Scan | None = None
        self._passed_number = 0
        self._given_seq = 0
        self._live: Segment | None = None
        self._at_note = False

    def read(self, after_seq: int, limit: int, written: Place | None) -> Batch | None:
        """Give the next events after a number; `written` is how far a living writer has come in its last file."""
        if after_seq < self._given_seq:
            self._rewind()
        self._keep_up(written)
        decoded = Decoded(self._writer_id)
        document_bytes = 0
        while decoded.event_count < limit and document_bytes < DOCUMENT_BYTES:
            payload = self._next_payload()
            if payload is None:
                self._settle_end(after_seq, written)
                break
            count = decoded.event_count
            self._take(payload, after_seq, decoded)
            if payload[0] != SUCCESS and decoded.event_count > count:
                document_bytes += len(payload)
        batch = decoded.as_batch(after_seq, with_all_newcomers=self.damage.any_met)
        self._given_seq = self._given_seq if batch is None else batch.last_seq
        return batch

    def has_passed(self, segment: Segment) -> bool:
        return segment.name.number <= self._passed_number

    def let_go(self, segment: Segment) -> None:
        """Hear that a file goes, which need not have been read: what was in it is missing nowhere."""
        if self._segment is segment:
            self._leave()
        if segment.name.number > self._passed_number:
            self._passed_number = segment.name.number
            if segment.end_total is not None:
                self.total = max(self.total or 0, segment.end_total)

    def hear_of_emptying(self, segment: Segment) -> None:
        """Forget what was known of a file."""
        self.damage.forget(segment.path)
        if self._segment is segment:
            self._segment = self._scan = None
            self._passed_number = segment.name.number - 1

    def _rewind(self) -> None:
        """Go back to the beginning of what there is."""
        self._leave()
        self._passed_number = self._given_seq = 0
        self.total, self.last_seq = None, 0

    def _keep_up(self, written: Place | None) -> None:
        """Take note of how far the writer is, and of files that went because all in them is stored."""
        if written is None or not self._segments:
            return
        self._live = self._segments[-1]
        self._live.size = written.offset
        if self._scan is not None and self._segment is not None:
            self._scan.size = self._segment.size
        first = self._segments[0]
        start = first.start
        if start.total is not None and (self.total is None or self.total < start.total):
            self._leave()
            self._passed_number = first.name.number - 1
            self.total, self.last_seq = start.total, start.seq

    def _next_payload(self) -> bytes | None:
        """Give the next record, going from file to file; None at the end of what there is."""
        while (scan := self._scan or self._enter_next()) is not None and self._segment is not None:
            segment, offset = self._segment, scan.offset
            try:
                found = scan.next()
            except OSError as error:
                self._give_up(segment, offset, error)
                continue
            if isinstance(found, bytes):
                return found
            if found is not None:
                self.damage.suspect(segment, found.offset, found.length)
            elif segment is self._live:
                return None
            else:
                self._finish(segment)
        return None

    def _enter_next(self) -> Scan | None:
        """Go to the next file, if there is one."""
        for segment in self._segments:
            if segment.name.number > self._passed_number:
                self._segment, self._at_note = segment, False
                self._scan = Scan(segment.read_at, segment.size, segment.seed, segment.start.offset)
                return self._scan
        return None

    def _finish(self, segment: Segment) -> None:
        """Leave a file at its end, which now is known also if an earlier process wrote it."""
        if segment.done_at is None:
            segment.done_at, segment.end_total = self.last_seq, self.total
            segment.ends_with_note = self._at_note
        self._leave()
        self._passed_number = segment.name.number

    def _leave(self) -> None:
        segment, self._segment, self._scan = self._segment, None, None
        if segment is not None and segment is not self._live:
            segment.close()

    def _give_up(self, segment: Segment, offset: int, error: OSError) -> None:
        """Pass over what can't be read; its file is kept as it is, for somebody who can read it."""
        logger.error("%s can't be read: %s", segment.path, error)
        if segment is self._live and self._scan is not None:
            self._scan.offset = self._scan.size
            self.damage.suspect(segment, offset, segment.size - offset)
            return
        self._leave()
        self._passed_number = segment.name.number
        self._segments.remove(segment)
        length = segment.size - offset
        kept_in = self._folder.set_aside(segment)
        self.damage.suspect(segment, offset, 0 if kept_in is None else length, kept_in)

    def _take(self, payload: bytes, after_seq: int, decoded: Decoded) -> None:
        kind, seq, total, _ = prefix = prefix_of(payload)
        is_event = kind != NOTE
        if (self.total is not None and total <= self.total) or (is_event and seq <= self.last_seq):
            self._suspect_record(payload)
            return
        if total - 1 != self.total or not self.damage.is_settled:
            self._settle(prefix, after_seq)
        if seq > after_seq or (seq == after_seq and not is_event):
            try:
                (decoded.take_success if kind == SUCCESS else decoded.take_document)(seq, payload)
            except Exception:  # noqa: BLE001 - whole, but not understood: a newer version's, or somebody else's
                self._suspect_record(payload)
                return
        self.total = total
        self._at_note = not is_event
        if is_event:
            self.last_seq = seq

    def _suspect_record(self, payload: bytes) -> None:
        if self._segment is not None and self._scan is not None:
            length = HEAD_SIZE + len(payload)
            self.damage.suspect(self._segment, self._scan.offset - length, length)

    def _settle(self, found: Prefix, after_seq: int) -> None:
        """Work out what is missing before a record: in its own file, and in those before it."""
        before: int | None = None
        here = found.place - 1
        if self.total is not None:
            missing = found.total - 1 - self.total
            here = min(here, missing)
            before = missing - here
        if self.last_seq < after_seq:
            # What is not above this number is stored.
            most = max(found.seq - after_seq - (found.kind != NOTE), 0)
            here = min(here, most)
            if before is not None or not most:
                before = min(before or 0, most - here)
        self.total = found.total - 1
        if self._segment is not None and self._scan is not None:
            self.damage.settle(self._segment, self._scan.offset, here, before)

    def _settle_end(self, after_seq: int, written: Place | None) -> None:
        missing = None
        if written is not None and written.total is not None:
            missing = written.total - (self.total or 0) if after_seq < written.seq else 0
            self.total, self.last_seq = written.total, written.seq
            if self._scan is not None:
                self._scan.offset = self._scan.size = written.offset
        self.damage.settle_end(self._live, missing)
