"""What is damaged in a spool: how much it costs, told once, and the bytes kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from breaker_store.spool.aside import Aside
from breaker_store.spool.segments import Segment

logger = logging.getLogger(__name__)


class Damage(NamedTuple):
    """Bytes of a file that could not be read as events, or the place where events are missing.

    Attributes:
        events: how many are missing, by the numbers around it; at least 1.
        kept_in: the file with the damaged bytes; None if there are none, or they could not be kept.

    """

    path: Path
    offset: int
    length: int
    events: int
    kept_in: Path | None


@dataclass(slots=True)
class _Suspect:
    """A stretch of a file of which is not known yet how many events it costs."""

    segment: Segment
    offset: int
    length: int
    kept_in: Path | None = None


class DamageReport:
    """The damage in one writer's files.

    A stretch is suspected when it is met, and settled when the next record tells how many are missing.

    Attributes:
        found: what events are missing for.
        any_met: whether anything was ever suspected.

    """

    def __init__(self, aside: Aside) -> None:
        self.found: list[Damage] = []
        self.any_met = False
        self._aside = aside
        self._suspects: list[_Suspect] = []
        self._told: set[tuple[Path, int]] = set()

    @property
    def is_settled(self) -> bool:
        return not self._suspects

    def suspect(self, segment: Segment, offset: int, length: int, kept_in: Path | None = None) -> None:
        self.any_met = True
        last = self._suspects[-1] if self._suspects else None
        if last is not None and last.segment is segment and last.offset + last.length == offset:
            last.length += length
        else:
            self._suspects.append(_Suspect(segment, offset, length, kept_in))

    def settle(self, segment: Segment, offset: int, here: int, before: int | None) -> None:
        """Tell what the suspects cost, by the record at a place: so many before it in its file, and in others.

        None stands for a number that is not known: each suspect costs at least one.
        """
        suspects, self._suspects = self._suspects, []
        elsewhere = [each for each in suspects if each.segment is not segment]
        self._blame(elsewhere, len(elsewhere) if before is None else before, _Suspect(segment, offset, 0))
        local = [each for each in suspects if each.segment is segment]
        self._blame(local, here, _Suspect(segment, offset, 0))

    def settle_end(self, segment: Segment | None, missing: int | None) -> None:
        """Tell what the suspects cost after which nothing comes."""
        suspects, self._suspects = self._suspects, []
        instead = None if segment is None else _Suspect(segment, segment.size, 0)
        self._blame(suspects, len(suspects) if missing is None else missing, instead)

    def forget(self, path: Path) -> None:
        """Hear that a file was emptied: what is met in it from now on is new."""
        self._told = {place for place in self._told if place[0] != path}

    def _blame(self, suspects: list[_Suspect], events: int, instead: _Suspect | None) -> None:
        """Share missing events out: one for each suspect, and what is left for the first."""
        if events and not suspects and instead is not None:
            self.any_met = True
            suspects = [instead]
        for behind, suspect in zip(reversed(range(len(suspects))), suspects, strict=True):
            share = max(events - behind, 0)
            events -= share
            self._tell(suspect, share)

    def _tell(self, suspect: _Suspect, events: int) -> None:
        path = suspect.segment.path
        if (path, suspect.offset) in self._told:
            return
        self._told.add((path, suspect.offset))
        kept_in = suspect.kept_in or self._aside.keep_bytes(path, suspect.offset, suspect.length)
        if events:
            self.found.append(Damage(path, suspect.offset, suspect.length, events, kept_in))
        logger.log(
            logging.ERROR if events else logging.WARNING,
            "%s is damaged at byte %d: %d bytes, %d events missing; kept in %s",
            path, suspect.offset, suspect.length, events, kept_in,
        )  # fmt: skip
