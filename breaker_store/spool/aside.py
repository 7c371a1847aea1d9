"""What can't be delivered is kept where a person can look at it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

from breaker_store.core.events import Failure, Kind, Suspension, Transition, Verdict
from breaker_store.errors import SpoolError
from breaker_store.ports import Batch, Gap, Mark, OutcomeRow
from breaker_store.spool.records import CHUNK

logger = logging.getLogger(__name__)

_COPY: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW: Final = _COPY | os.O_EXCL
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OUTCOME_NAMES: Final = (
    "probe", "count", "attempt", "trace_id", "operation", "error_type", "error_message",
)  # fmt: skip


class Aside:
    """The folder for it, made when it is needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep_bytes(self, path: Path, offset: int, length: int) -> Path | None:
        """Copy a part of a file; None if there is nothing to copy, or it can't be done.

        It stands at the same place of a file of the same name, in which there is nothing else but what is damaged.
        """
        if length == 0:
            return None
        kept_in = self.directory / f"{path.name}.damaged"
        try:
            self._make()
            with path.open("rb") as source, _opened(kept_in, _COPY) as target:
                _copy(source, target, offset, length)
        except OSError as error:
            logger.error("the damaged part of %s can't be kept: %s", path, error)  # noqa: TRY400
            return None
        return kept_in

    def keep_file(self, path: Path) -> Path:
        """Move a whole file here, or leave it where it is if that can't be done; say where it is."""
        try:
            self._make()
            kept_in = self._free_name(path.name, "")
            path.rename(kept_in)
        except OSError as error:
            logger.error("%s can't be set aside: %s", path, error)  # noqa: TRY400
            return path
        return kept_in

    def keep_batch(self, batch: Batch, reason: str) -> Path:
        """Write a batch for people to read: one JSON document a line, the first of which says why.

        Raises:
            SpoolError: the disk refuses.

        """
        lines = "".join(f"{_readable(document)}\n" for document in _documents(batch, reason))
        data = lines.encode(errors="backslashreplace")
        try:
            self._make()
            kept_in = self._free_name(f"{batch.writer_id:016x}-{batch.first_seq}-{batch.last_seq}", ".jsonl")
            _write(kept_in, data)
        except OSError as error:
            raise SpoolError(f"events can't be set aside in {self.directory}: {error.strerror}") from error
        return kept_in

    def _free_name(self, name: str, suffix: str) -> Path:
        path = self.directory / f"{name}{suffix}"
        number = 1
        while os.path.lexists(path):
            number += 1
            path = self.directory / f"{name}-{number}{suffix}"
        return path

    def _make(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)


def _opened(path: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _copy(source: BinaryIO, target: BinaryIO, offset: int, length: int) -> None:
    source.seek(offset)
    target.seek(offset)
    while length > 0 and (part := source.read(min(CHUNK, length))):
        length -= len(part)
        target.write(part)


def _write(path: Path, data: bytes) -> None:
    """Write a new file; there is none if that fails."""
    try:
        with _opened(path, _NEW) as file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _readable(document: dict[str, Any]) -> str:
    # What is set aside may be odd in any way, that is why it is.
    return json.dumps(document, ensure_ascii=False, default=str)


def _documents(batch: Batch, reason: str) -> Iterator[dict[str, Any]]:
    yield {
        "why": reason,
        "writer_id": batch.writer_id,
        "first_seq": batch.first_seq,
        "last_seq": batch.last_seq,
        "events": batch.event_count,
    }
    yield from (_outcome_document(batch.writer_id, row) for row in batch.outcomes)
    yield from (_transition_document(user_id, transition) for user_id, transition in batch.transitions)
    yield from (_mark_document(mark) for mark in batch.marks)
    for user_id, policy in batch.newcomers.items():
        yield {"newcomer": user_id, "policy": policy.to_document()}
    yield from (_gap_document(gap) for gap in batch.gaps)


def _outcome_document(writer_id: int, row: OutcomeRow) -> dict[str, Any]:
    at, user_id, seq, duration_us, generation, era, kind, verdict, *rest = row
    said = {name: value for name, value in zip(_OUTCOME_NAMES, rest, strict=True) if value is not None}
    return {
        "event": f"{writer_id}-{seq}",
        "at": _iso(at),
        "user_id": user_id,
        "kind": Kind(kind).label,
        "verdict": Verdict(verdict).name.lower(),
        "duration_us": duration_us,
        "generation": generation,
        "era": era,
        **said,
    }


def _transition_document(user_id: int, transition: Transition) -> dict[str, Any]:
    document = {name: getattr(transition, name) for name in Transition.__dataclass_fields__}
    del document["event_id"], document["position"]
    return {
        "event": str(transition.event_id),
        "user_id": user_id,
        **document,
        "at": _iso(transition.at),
        "kind": transition.kind.label,
        "follows": transition.follows and str(transition.follows),
        "policy": transition.policy.to_document(),
        "last_failure": _failure_document(transition.last_failure),
        "causes": [_failure_document(cause) for cause in transition.causes],
        "opened_at": _iso(transition.opened_at),
        "opened_by": transition.opened_by and str(transition.opened_by),
        "retry_at": _iso(transition.retry_at),
        "suspension": _suspension_document(transition.suspension),
    }


def _suspension_document(suspension: Suspension | None) -> dict[str, Any] | None:
    if suspension is None:
        return None
    return {"actor": suspension.actor, "reason": suspension.reason, "at": _iso(suspension.at)}


def _mark_document(mark: Mark) -> dict[str, Any]:
    return {
        "mark": mark.kind.name.lower(),
        "of": mark.writer_seq,
        "user_id": mark.user_id,
        "at": _iso(mark.at),
        "era": mark.era,
        "last_failure": _failure_document(mark.last_failure),
    }


def _failure_document(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "event": str(failure.event_id),
        "at": _iso(failure.at),
        "error_type": failure.error_type,
        "error_message": failure.error_message,
        "operation": failure.operation,
        "duration_us": failure.duration_us,
    }


def _gap_document(gap: Gap) -> dict[str, Any]:
    counts = {name: count for name, count in zip(gap._fields[3:], gap[3:], strict=True) if count}
    return {
        "gap": gap.reason.name.lower(),
        "first_at": _iso(gap.first_at),
        "last_at": _iso(gap.last_at),
        **counts,
    }


def _iso(time_us: int | None) -> str | int | None:
    """Write a time in UTC; one that is in no calendar as the number that it is."""
    if time_us is None:
        return None
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")
    except OverflowError:
        return time_us
