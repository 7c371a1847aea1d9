from __future__ import annotations

import fcntl
import os

import pytest

from breaker_store.embedded import OthersAreBusyError


def test_stops_when_the_last_process_leaves(place, query):
    """Of two processes that share the server, the first to leave lets it run, and the last stops it."""
    first, second = place.user_process(), place.user_process()
    host = first.line()
    assert host == second.line()
    first.leave()
    assert query(host, "SELECT fact FROM seen") == "committed"
    second.leave()
    assert place.postmaster_pid() is None


def test_counts_two_users_in_one_process(place, query):
    """Two users in one process share the server, and it stops with the last of them."""
    first, second = place.server().acquire(), place.server().acquire()
    first.release()
    assert query(second.host, "SELECT fact FROM seen") == "committed"
    second.release()
    assert place.postmaster_pid() is None


def test_does_not_count_a_killed_user(place, query):
    """After a kill -9 of one user the server runs for the other, who stops it when leaving."""
    killed = place.user_process()
    killed.line()
    with place.server() as server:
        killed.kill()
        assert query(server.host, "SELECT fact FROM seen") == "committed"
    assert place.postmaster_pid() is None


def test_adopts_a_server_whose_users_were_all_killed(place):
    """A server that nobody uses any more runs on for the next user, who stops it when leaving."""
    killed = place.user_process()
    killed.line()
    killed.kill()
    abandoned = place.postmaster_pid()
    with place.server():
        assert place.postmaster_pid() == abandoned
    assert place.postmaster_pid() is None


def test_starts_one_server_for_many_who_come_at_once(new_place):
    """Processes that begin with the same new data directory at the same time get the same server."""
    users = [new_place.user_process() for _ in range(3)]
    assert {user.line() for user in users} == {str(new_place.home / "data")}
    started = (new_place.home / "data" / "server.log").read_text().count("starting PostgreSQL")
    assert started == 1
    for user in users:
        user.leave()
    assert new_place.postmaster_pid() is None


def test_is_not_used_by_a_forked_child(place):
    """A forked child neither keeps its parent's server running nor stops it."""
    server = place.server().acquire()
    child, tell_child = _fork_and_wait(server.release)
    assert place.postmaster_pid() is not None
    server.release()
    assert place.postmaster_pid() is None
    os.close(tell_child)
    os.waitpid(child, 0)


def _fork_and_wait(call):
    """Fork a child that calls the function, says so, and lives until the returned descriptor is closed."""
    called_reader, called_writer = os.pipe()
    told_reader, told_writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told_writer)
        call()
        os.write(called_writer, b".")
        os.read(told_reader, 1)
        os._exit(0)
    assert os.read(called_reader, 1) == b"."
    for descriptor in (called_reader, called_writer, told_reader):
        os.close(descriptor)
    return child, told_writer


def test_does_not_wait_for_ever_for_others(place):
    """Somebody who starts or stops the server for too long is named in the error."""
    lock_file = place.home / "starting-or-stopping.lock"
    with lock_file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OthersAreBusyError, match="starting-or-stopping"):
            place.server(patience_seconds=0).acquire()
