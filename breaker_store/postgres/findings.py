"""What a check of the record has found wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

KEPT: Final = 20
"""So many findings are kept; of the others it is known how many they are."""


@dataclass(slots=True)
class Findings:
    """Sentences of what is wrong, in the order in which it was found.

    Attributes:
        count: how many there are, of which `texts` are the first.

    """

    texts: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < KEPT:
            self.texts.append(text)
