"""Root runs the server as somebody else; anybody else runs it as themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from breaker_store.embedded import DataDirUnusableError, EmbeddedPostgres, EmbeddedPostgresError

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")


def _modes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode for path in (folder, *folder.parents)}


@only_root
def test_root_leaves_every_parents_mode_as_it_is(new_place):
    """Making a cluster below a folder that is root's alone changes the mode of no folder that was there."""
    private = new_place.folder / "private"
    private.mkdir(mode=0o700)
    new_place.data_dir = private / "data"
    new_place.data_dir.mkdir(mode=0o750)
    before = _modes(new_place.data_dir)
    with new_place.server() as server:
        assert Path(server.host).stat().st_uid != 0
    assert _modes(new_place.data_dir) == before


@only_root
def test_root_finds_again_the_cluster_that_lives_elsewhere(new_place, query):
    """A data directory that the server can't enter says where its cluster is, and takes it along when moved."""
    private = new_place.folder / "private"
    private.mkdir(mode=0o700)
    new_place.data_dir = private / "data"
    with new_place.server() as server:
        query(server.host, "CREATE TABLE found_again ()")
        home = Path(server.host).parent
    assert home.parent == new_place.system_dir / "clusters"
    assert (new_place.data_dir / "postgres-location").read_text() == f"{home}\n"
    new_place.data_dir = new_place.data_dir.rename(private / "moved")
    with new_place.server() as server:
        assert query(server.host, "SELECT count(*) FROM found_again") == 0


@only_root
def test_root_is_told_when_the_server_can_not_enter_its_folder_any_more(new_place):
    """A parent that was closed after the cluster was made is named in the error."""
    new_place.server().acquire().release()
    new_place.folder.chmod(0o700)
    with pytest.raises(DataDirUnusableError, match="can't enter"):
        new_place.server().acquire()


def test_somebody_else_runs_it_below_a_private_folder(new_place, as_nobody):
    """A user who is not root has the cluster in the data directory, below folders that are theirs alone."""
    new_place.folder.chmod(0o700)
    os.chown(new_place.folder, NOBODY, NOBODY)

    def start_and_stop() -> str:
        with new_place.server() as server:
            return server.host

    assert as_nobody(start_and_stop) == str(new_place.home / "data")
    assert new_place.postmaster_pid() is None


def test_somebody_else_is_told_what_is_not_theirs(new_place, as_nobody):
    """A data directory that one may not write is refused, naming it and the reason."""

    def start() -> object:
        try:
            return EmbeddedPostgres(new_place.data_dir).acquire()
        except EmbeddedPostgresError as error:
            return repr(error)

    said = as_nobody(start)
    assert said.startswith("DataDirUnusableError")
    assert "Permission denied" in said


def test_somebody_else_runs_it_below_a_folder_to_pass_through(new_place, as_nobody):
    """A data directory of one's own serves below a folder that one may enter but not read."""
    new_place.data_dir.mkdir()
    os.chown(new_place.data_dir, NOBODY, NOBODY)
    new_place.folder.chmod(0o711)

    def start_and_stop() -> str:
        with new_place.server() as server:
            return server.host

    assert as_nobody(start_and_stop) == str(new_place.home / "data")


def test_root_joins_the_server_of_somebody_else(new_place, as_nobody, query):
    """Root, who uses another user's data directory, runs the server as that user, who can use it afterwards."""
    new_place.data_dir.mkdir()
    os.chown(new_place.data_dir, NOBODY, NOBODY)

    def create() -> None:
        with new_place.server() as server:
            query(server.host, "CREATE TABLE mine ()")

    def count() -> object:
        with new_place.server() as server:
            return query(server.host, "SELECT count(*) FROM mine")

    assert as_nobody(create) == "None"
    assert count() == 0
    assert as_nobody(count) == "0"
