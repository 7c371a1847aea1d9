"""The events of one writer on local disk.

Nothing is flushed to the device: what was written survives the death of the process, not of the machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Final

from breaker_store.errors import SpoolError
from breaker_store.ports import Batch
from breaker_store.spool.damage import Damage
from breaker_store.spool.encoding import (
    NOTE,
    SUCCESS,
    SUCCESS_SIZE,
    UNENCODABLE,
    Body,
    encode,
    encoded_name,
    pack_success,
    refused,
)
from breaker_store.spool.reading import Reader
from breaker_store.spool.records import HEAD_SIZE, PREFIX_SIZE, frame, pack_prefix
from breaker_store.spool.segments import NO_DESCRIPTOR, Folder, Place, Segment, SegmentName

logger = logging.getLogger(__name__)

_PLAIN_SIZE: Final = HEAD_SIZE + SUCCESS_SIZE
_PLACES_APART: Final = 16_384


class SpoolWriter:
    """The events of one writer, in the order of their numbers: written at one end, read and forgotten at the other.

    Attributes:
        last_seq: of the last event written, 0 for none; of an earlier process 0 until it is read through.
        size: of the file that is being written, in bytes.

    """

    __slots__ = (
        "_closed", "_descriptor", "_folder", "_next_number", "_note_total", "_place", "_places", "_reader", "_room",
        "_seed", "_segments", "_started_us", "_total", "last_seq", "size", "writer_id",
    )  # fmt: skip

    def __init__(
        self, folder: Folder, started_us: int, writer_id: int, leftover: Sequence[Segment] = ()
    ) -> None:
        self.writer_id = writer_id
        self.last_seq = 0
        self.size = 0
        self._folder = folder
        self._started_us = started_us
        self._segments = list(leftover)
        self._reader = Reader(folder, writer_id, self._segments)
        self._descriptor = NO_DESCRIPTOR
        self._closed = False
        # An earlier process's files are not written to.
        self._next_number = 0 if leftover else 1
        self._room = self._seed = self._place = self._total = 0
        self._note_total = -1
        self._places: list[Place] = []

    @property
    def damaged(self) -> list[Damage]:
        return self._reader.damage.found

    @property
    def has_files(self) -> bool:
        return bool(self._segments)

    def write_success(  # noqa: PLR0913, PLR0917 - what is known of a success; a row would be one more object
        self,
        seq: int,
        user_id: int,
        at: int,
        duration_us: int,
        generation: int,
        era: int,
        operation: str | None,
    ) -> None:
        """Write a success that changed nothing: all of it or nothing.

        Raises:
            SpoolError: the disk refuses.
            EventRefusedError: it can't be encoded.
            ValueError: its number is not above the last one's.

        """
        if seq <= self.last_seq:
            raise self._not_in_order(seq)
        try:
            name = encoded_name(operation)
            length = _PLAIN_SIZE + len(name)
            if self.size + length > self._room:
                self._make_room(length)
            payload = pack_success(
                SUCCESS, seq, self._total + 1, self._place + 1, user_id, at, duration_us, generation, era
            )
        except UNENCODABLE as error:
            raise refused(error) from error
        self._append(frame(payload + name, self._seed), 1, seq)

    def write(self, batch: Batch) -> None:
        """Write all that is in a batch, or nothing of it; its number, its lines and its predecessor are not kept.

        Raises:
            SpoolError: the disk refuses.
            EventRefusedError: one of its events can't be encoded.
            ValueError: it is another writer's, or a number is not above the one before it.

        """
        if batch.writer_id != self.writer_id:
            raise ValueError(f"events of writer {batch.writer_id} among those of {self.writer_id}")
        bodies = encode(batch, max(self.last_seq, batch.last_seq))
        if not bodies:
            return
        last_seq = self._check_order(bodies)
        self._make_room(sum(HEAD_SIZE + PREFIX_SIZE + len(body.data) for body in bodies))
        try:
            records = [self._frame(number, body) for number, body in enumerate(bodies, 1)]
        except UNENCODABLE as error:
            raise refused(error) from error
        self._append(b"".join(records), len(records), last_seq)
        if bodies[-1].kind == NOTE:
            self._note_total = self._total

    def read(self, after_seq: int, limit: int) -> Batch | None:
        """Give the next events after a number, at most `limit`, in order; None if there is nothing more.

        It goes on where it was; a smaller number than that of the last event given goes back to the beginning. Gaps
        come with the events after them, or with those before them if none follow yet, or alone if there are neither.
        """
        if self._closed:
            return None
        is_live = self._next_number > 0 and self._segments
        written = Place(self.size, self.last_seq, self._total) if is_live else None
        batch = self._reader.read(after_seq, limit, written)
        if batch is None and not self._next_number:
            self.last_seq = self._reader.last_seq
        return batch

    def forget(self, through_seq: int) -> None:
        """Free the room of what is stored: everything up to this number.

        Raises:
            SpoolError: the disk refuses.

        """
        if self._closed:
            return
        segments = self._segments
        kept = 1 if self._next_number else 0
        while len(segments) > kept and self._is_done(segments[0], through_seq):
            self._delete(segments.pop(0))
        if not self._next_number or not self.size:
            return
        if len(segments) == 1:
            if through_seq >= self.last_seq and not self._has_unread_note():
                self._empty()
            else:
                self._note_start(segments[0], through_seq)

    def remove(self) -> None:
        """Delete all files of this writer; what is written after that begins anew."""
        if self._closed:
            return
        self._seal()
        while self._segments:
            self._delete(self._segments.pop())

    def close(self) -> None:
        """Let go of the files; those with nothing in them are deleted."""
        if self._closed:
            return
        self._seal()
        for segment in self._segments:
            segment.close()
            if not segment.size:
                self._folder.delete(segment)
        self._closed = True

    def leave_to_parent(self) -> None:
        """Close the descriptors that a forked child shares with its parent, and touch nothing."""
        self._descriptor, self._room, self._closed = NO_DESCRIPTOR, 0, True
        for segment in self._segments:
            segment.close()

    def _frame(self, number: int, body: Body) -> bytes:
        prefix = pack_prefix(body.kind, body.seq, self._total + number, self._place + number)
        return frame(prefix + body.data, self._seed)

    def _append(self, data: bytes, count: int, last_seq: int) -> None:
        # At a place, not at the end: what a failed attempt may have left there is written over.
        try:
            written = os.pwrite(self._descriptor, data, self.size)
            if written != len(data):
                self._write_rest(data, written)
        except OSError as error:
            self._cut_back()
            raise SpoolError(f"{self._segments[-1].path}: {error.strerror}") from error
        # In this order an interrupt (Ctrl-C) between any two of them costs no event: at worst one seems to be missing.
        self._total += count
        self._place += count
        self.size += len(data)
        self.last_seq = last_seq

    def _write_rest(self, data: bytes, written: int) -> None:
        """Write on after a write that was cut short; nearly always this tells why it was."""
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self.size + written)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            logger.error("%s can't be cut back to %d bytes: %s", self._segments[-1].path, self.size, error)  # noqa: TRY400

    def _make_room(self, length: int) -> None:
        """Begin the next file if so many bytes have no room in this one."""
        if self.size + length <= self._room:
            return
        if self._closed or not self._next_number:
            why = "closed" if self._closed else "an earlier process's"
            raise SpoolError(f"the spool in {self._folder.directory} is {why}")
        if self._descriptor == NO_DESCRIPTOR or self.size:
            segment = self._create_segment()
            self._seal()
            self._segments.append(segment)
            self._descriptor, self._seed, self._place = segment.descriptor, segment.seed, 0
        self._room = max(self._folder.segment_bytes, length)

    def _create_segment(self) -> Segment:
        start = Place(0, self.last_seq, self._total)
        while True:
            name = SegmentName(self._started_us, self.writer_id, self._next_number)
            segment = Segment(self._folder.directory / str(name), name, start=start)
            try:
                segment.create()
            except FileExistsError:
                self._next_number += 1
                continue
            except OSError as error:
                raise SpoolError(f"{segment.path}: {error.strerror}") from error
            self._next_number += 1
            return segment

    def _seal(self) -> None:
        """Make the current file one of those that are not written any more."""
        if self._descriptor == NO_DESCRIPTOR:
            return
        segment = self._segments[-1]
        segment.size = self.size
        segment.done_at, segment.end_total = self.last_seq, self._total
        segment.ends_with_note = self._note_total == self._total
        self._folder.settled_bytes += self.size
        segment.close()
        self._places.clear()
        self._descriptor, self._room, self.size = NO_DESCRIPTOR, 0, 0

    def _is_done(self, segment: Segment, through_seq: int) -> bool:
        if segment.done_at is None or through_seq < segment.done_at:
            return False
        is_read = not segment.ends_with_note or self._reader.has_passed(segment)
        return is_read or through_seq > segment.done_at

    def _delete(self, segment: Segment) -> None:
        self._reader.let_go(segment)
        self._folder.delete(segment)

    def _empty(self) -> None:
        segment = self._segments[-1]
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise SpoolError(f"{segment.path}: {error.strerror}") from error
        segment.start = Place(0, self.last_seq, self._total)
        self.size = self._place = 0
        self._places.clear()
        self._reader.hear_of_emptying(segment)

    def _note_start(self, segment: Segment, through_seq: int) -> None:
        """Note from where on a reader has to look, so that it need not go through what is stored."""
        places = self._places
        while places and places[0].seq <= through_seq:
            segment.start = places.pop(0)
        last = places[-1] if places else segment.start
        if self.size - last.offset >= _PLACES_APART and not self._has_unread_note():
            places.append(Place(self.size, self.last_seq, self._total))

    def _has_unread_note(self) -> bool:
        """Tell whether the newest record is a note that nobody has read: no event tells when it is stored."""
        return self._note_total == self._total and (self._reader.total or 0) < self._total

    def _check_order(self, bodies: Sequence[Body]) -> int:
        """Give the number of the last event."""
        last_seq = self.last_seq
        for body in bodies:
            if body.kind != NOTE:
                if body.seq <= last_seq:
                    raise self._not_in_order(body.seq)
                last_seq = body.seq
        return last_seq

    def _not_in_order(self, seq: int) -> ValueError:
        return ValueError(f"event {seq} of writer {self.writer_id} comes after event {self.last_seq}")
