"""How far those tests go whose proof grows with the number of examples, rounds or places that they try.

BREAKER_STORE_TEST_DEPTH in the environment multiplies these numbers, and divides the steps between places. 1, the
default, is what every run can bear.
"""

from __future__ import annotations

import os

DEPTH = int(os.environ.get("BREAKER_STORE_TEST_DEPTH", "1"))


def step(places: int) -> int:
    """Give how many places to go on each time, of which the deepest runs leave none out."""
    return max(1, places // DEPTH)
