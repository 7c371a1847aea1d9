"""`python -m breaker_store.cli`, where the console script is not on the path."""

from __future__ import annotations

from breaker_store.cli import main

if __name__ == "__main__":
    main()
