from __future__ import annotations

import os

import pytest

from breaker_store.embedded import DataDirUnusableError, OtherMajorVersionError


def test_refuses_a_file(new_place):
    """A data directory that is a file is refused, and the file stays as it is."""
    new_place.data_dir.write_text("precious")
    with pytest.raises(DataDirUnusableError, match="not a directory"):
        new_place.server().acquire()
    assert new_place.data_dir.read_text() == "precious"


def test_refuses_a_folder_below_a_file(new_place):
    """A data directory that can't be made is refused with the reason."""
    (new_place.folder / "file").touch()
    new_place.data_dir = new_place.folder / "file" / "data"
    with pytest.raises(DataDirUnusableError, match="Not a directory"):
        new_place.server().acquire()


def test_refuses_a_folder_with_other_content(new_place):
    """A folder with files that are not ours is refused, and nothing is put there."""
    new_place.data_dir.mkdir()
    (new_place.data_dir / "thesis.odt").touch()
    with pytest.raises(DataDirUnusableError, match="other files"):
        new_place.server().acquire()
    assert [path.name for path in new_place.data_dir.iterdir()] == ["thesis.odt"]


def test_takes_an_empty_volume(new_place, query):
    """The folder lost+found, which a new volume has, does not count as content."""
    (new_place.data_dir / "lost+found").mkdir(parents=True)
    with new_place.server() as server:
        assert query(server.host, "SELECT 1") == 1


def test_says_that_its_cluster_is_gone(new_place):
    """Where a cluster was and is no more, none is made in its place: its loss is said."""
    new_place.data_dir.mkdir()
    (new_place.data_dir / "postgres-location").write_text("postgres\n")
    with pytest.raises(DataDirUnusableError, match="which is gone"):
        new_place.server().acquire()
    assert not new_place.home.exists()


def test_refuses_the_cluster_of_another_major_version(place, query):
    """A cluster of another major version is refused with both versions and what to do, and stays as it is."""
    version_file = place.home / "data" / "PG_VERSION"
    ours = version_file.read_text()
    version_file.write_text("15\n")
    with pytest.raises(
        OtherMajorVersionError, match=r"made by Postgres 15.*pg_dump.*pg_restore.*--data-dir"
    ) as caught:
        place.server().acquire()
    assert (caught.value.found, caught.value.ours) == ("15", ours.strip())
    version_file.write_text(ours)
    with place.server() as server:
        assert query(server.host, "SELECT fact FROM seen") == "committed"


def test_an_interrupted_creation_leaves_no_cluster(new_place, query, site_with_initdb):
    """After a kill -9 in the middle of creating the cluster, the next start makes a whole one."""
    begun, go_on = (new_place.folder / name for name in ("begun", "go-on"))
    for fifo in (begun, go_on):
        os.mkfifo(fifo)
        fifo.chmod(0o666)
    initdb = f'echo 18 >"${{1#--pgdata=}}/PG_VERSION"; echo >"{begun}"; read told <"{go_on}"'
    user = new_place.user_process(site_with_initdb(initdb))
    begun.read_text()
    user.kill()
    assert list(new_place.home.glob("unfinished-*/PG_VERSION"))
    with new_place.server() as server:
        assert query(server.host, "SELECT 1") == 1
        assert not list(new_place.home.glob("unfinished-*"))
    go_on.write_text("\n")


def test_says_why_it_could_not_create_the_cluster(new_place, site_with_initdb):
    """When initdb fails, its own words are in the error, and no cluster is left."""
    user = new_place.user_process(site_with_initdb("echo no room for a cluster >&2; exit 1"))
    said = user.line()
    assert said.startswith("ServerStartError")
    assert "no room for a cluster" in said
    assert [path.name for path in new_place.home.iterdir()] == ["starting-or-stopping.lock"]
