"""The databases that benchmarks run on: durable ones, on a disk, since that is what is measured."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from breaker_store.embedded import EmbeddedPostgres


def add_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--database-url", help="a database for the benchmark alone: what it appends stays there"
    )
    where.add_argument(
        "--data-dir",
        type=Path,
        help="an embedded Postgres in this folder, which is kept; without either one in a temporary folder",
    )


@contextmanager
def open_server(arguments: argparse.Namespace, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Give the address of the database that is named, or of an embedded one with these settings."""
    if arguments.database_url is not None:
        yield arguments.database_url
        return
    with tempfile.TemporaryDirectory(prefix="breaker-store-benchmark-") as folder:
        # Root's server runs as another user, who has to pass through.
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(arguments.data_dir or Path(folder, "data"), settings=settings) as server:
            yield server.url
