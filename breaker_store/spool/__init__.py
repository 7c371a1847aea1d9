"""Events on local disk, until the log has them.

What is here survives the death of the process; nothing is flushed to the device, so a power cut may take the last
seconds. Not for threads: a spool belongs to one event loop.
"""

from __future__ import annotations

from breaker_store.spool.damage import Damage
from breaker_store.spool.directory import DEFAULT_LIMIT_BYTES, Spool
from breaker_store.spool.writer import SpoolWriter

__all__ = ["DEFAULT_LIMIT_BYTES", "Damage", "Spool", "SpoolWriter"]
