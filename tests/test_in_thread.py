"""A store for programs without an event loop: threads call through it, and it is closed however the program ends."""

from __future__ import annotations

import asyncio
import http.server
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import requests

from breaker_store import (
    BreakerStore,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    ConfigurationError,
    Kind,
    LedgerError,
    Policy,
    SchemaError,
    Transition,
)
from breaker_store.failures import REQUESTS
from breaker_store.in_thread import StoreOptions, open_in_thread
from tests.runtime.recorders import numbers_on_disk

USER = 101


def ok() -> str:
    return "sent"


def stored(database_url: str) -> Counter[Kind]:
    """Count what is in the log, by kind."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT kind, count(*) FROM breaker_events GROUP BY kind").fetchall()
    return Counter({Kind(kind): count for kind, count in rows})


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers as the path says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100
    daemon_threads = True


@pytest.fixture
def service() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def post(url: str) -> int:
    """Send something, and take an answer of a sick service for an error."""
    answer = requests.post(url, json={"text": "hi"}, timeout=10)
    answer.raise_for_status()
    return answer.status_code


def test_calls_of_requests_from_many_threads_are_each_stored_once(database_url: str, service: str) -> None:
    with open_in_thread(database_url=database_url, failures=REQUESTS) as store:

        def send(number: int) -> int:
            return store.registry.get_breaker(USER + number % 3).call_sync(post, f"{service}/200")

        with ThreadPoolExecutor(20) as threads:
            assert list(threads.map(send, range(300))) == [200] * 300
        store.flush_sync()
        assert stored(database_url) == {Kind.SUCCESS: 300}
        with pytest.raises(requests.HTTPError):
            store.registry.get_breaker(USER).call_sync(post, f"{service}/503")
    assert stored(database_url) == {Kind.SUCCESS: 300, Kind.FAILURE: 1}


def test_one_of_many_threads_probes_a_service_that_was_down(database_url: str, service: str) -> None:
    policy = Policy(failure_threshold=1, timeout_seconds=0, success_threshold=1)
    with open_in_thread(database_url=database_url, policy=policy) as store, ThreadPoolExecutor(20) as threads:
        breaker = store.registry.get_breaker(USER)
        with pytest.raises(requests.HTTPError):
            breaker.call_sync(post, f"{service}/503")
        entered, leave = threading.Event(), threading.Event()

        def probe() -> None:
            entered.set()
            leave.wait(10)

        probing = threads.submit(breaker.with_durability("committed").call_sync, probe)
        entered.wait(10)
        breaker.set_policy(Policy(failure_threshold=1, timeout_seconds=60, success_threshold=1))
        others = [threads.submit(breaker.call_sync, ok) for _ in range(19)]
        assert {type(other.exception()) for other in others} == {CircuitBreakerOpenError}
        leave.set()
        probing.result()
        assert breaker.state.state is CircuitState.CLOSED
    counts = stored(database_url)
    assert (counts[Kind.HALF_OPENED], counts[Kind.CLOSED], counts[Kind.SUCCESS]) == (1, 1, 1)


def test_a_committed_call_is_in_the_log_when_it_returns(database_url: str) -> None:
    with open_in_thread(database_url=database_url, durability="committed") as store:
        store.registry.get_breaker(USER).call_sync(ok)
        assert stored(database_url) == {Kind.SUCCESS: 1}


def test_a_journaled_call_is_on_disk_when_it_returns(database_url: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with open_in_thread(database_url=database_url, spool_dir=spool, durability="journaled") as store:
        store.registry.get_breaker(USER).call_sync(ok)
        assert numbers_on_disk(spool) == [1]


def test_a_restart_forgets_nothing(database_url: str) -> None:
    with open_in_thread(database_url=database_url) as store:
        store.registry.get_breaker(USER).force_open(actor="ada")
        assert store.registry.reset_breaker(999) is False
    with open_in_thread(database_url=database_url) as store:
        assert store.registry.get_open_breakers() == [USER]
        with pytest.raises(CircuitBreakerOpenError):
            store.registry.get_breaker(USER).call_sync(ok)


def test_after_the_end_calls_go_on_in_memory(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    registry = CircuitBreakerRegistry()
    with open_in_thread(database_url=database_url, registry=registry) as store:
        registry.get_breaker(USER).call_sync(ok)
    assert registry.get_breaker(USER).call_sync(ok) == "sent"
    assert stored(database_url) == {Kind.SUCCESS: 1}
    assert "nothing is stored any more" in caplog.text
    with pytest.raises(LedgerError):
        store.flush_sync()


async def test_a_listener_hears_on_its_own_loop_though_the_store_has_another(database_url: str) -> None:
    heard: asyncio.Queue[threading.Thread] = asyncio.Queue()

    async def hear(_user_id: int | None, _transition: Transition) -> None:
        heard.put_nowait(threading.current_thread())

    with open_in_thread(database_url=database_url) as store:
        store.registry.subscribe(hear)
        store.registry.get_breaker(USER).force_open()
        async with asyncio.timeout(5):
            assert await heard.get() is threading.current_thread()


async def test_on_the_event_loop_itself_there_is_no_waiting_for_a_flush(database_url: str) -> None:
    async with BreakerStore.open(database_url=database_url) as store:
        with pytest.raises(RuntimeError, match=r"`await store\.flush\(\)`"):
            store.flush_sync()


def test_what_opening_raises_is_raised(empty_database_url: str) -> None:
    with pytest.raises(SchemaError), open_in_thread(database_url=empty_database_url):
        pass
    with pytest.raises(ConfigurationError), open_in_thread(database_url="x", durability="journaled"):
        pass


def test_what_the_body_raises_is_raised_and_the_store_is_closed(database_url: str) -> None:
    with pytest.raises(KeyError), open_in_thread(database_url=database_url) as store:
        store.registry.get_breaker(USER).call_sync(ok)
        raise KeyError
    assert stored(database_url) == {Kind.SUCCESS: 1}


def test_the_options_are_those_of_a_store_in_the_same_order() -> None:
    options = [name for name in inspect.signature(BreakerStore.open).parameters if name != "cls"]
    assert [*StoreOptions.__annotations__, "drain_on_sigterm"] == options


PROGRAM = """
import os, signal, sys, threading, time
from breaker_store.in_thread import open_in_thread

database_url, body = sys.argv[1:]

def ok(): pass

def call_for_ever(breaker):
    while True:
        breaker.call_sync(ok)

def say(word):
    print(word, flush=True)

def wait(store):
    try:
        say("ready")
        threading.Event().wait()
    finally:
        say("leaving")

def call_when_told(store):
    say("ready")
    sys.stdin.readline()
    for _ in range(500):
        store.registry.get_breaker(101).call_sync(ok)
    say("leaving")

def wait_with_busy_threads(store):
    for _ in range(4):
        threading.Thread(target=call_for_ever, args=(store.registry.get_breaker(102),), daemon=True).start()
    wait(store)

def fork(store):
    say("ready")
    child = os.fork()
    if child == 0:
        store.registry.get_breaker(101).call_sync(ok)
        sys.exit(7)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

if body == "handle":
    def handle(*_):
        raise ValueError("a handler of the program's own")
    signal.signal(signal.SIGTERM, handle)

with open_in_thread(database_url=database_url) as store:
    for _ in range(500):
        store.registry.get_breaker(101).call_sync(ok)
    bodies = {"wait": wait, "busy": wait_with_busy_threads, "handle": wait, "told": call_when_told, "fork": fork}
    bodies[body](store)
say("left")
"""


def run(database_url: str, body: str, number: int | None) -> tuple[int, list[str], str]:
    """Run a program until it is ready, send it a signal, and give how it ended and what it said."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, database_url, body]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if number is not None:
            os.kill(process.pid, number)
        said, complaints = process.communicate(timeout=30)
        return process.returncode, said.split(), complaints


@pytest.mark.parametrize("body", ["wait", "busy"])
def test_sigterm_ends_the_block_stores_what_waits_and_ends_the_program_by_the_signal(
    database_url: str, body: str
) -> None:
    code, said, _ = run(database_url, body, signal.SIGTERM)
    assert (code, said) == (-signal.SIGTERM, ["leaving"])
    assert stored(database_url)[Kind.SUCCESS] >= 500


def test_ctrl_c_ends_the_block_and_stores_what_waits(database_url: str) -> None:
    code, said, complaints = run(database_url, "wait", signal.SIGINT)
    assert (code, said) == (-signal.SIGINT, ["leaving"])
    assert complaints.endswith("KeyboardInterrupt\n")
    assert stored(database_url) == {Kind.SUCCESS: 500}


def test_ctrl_c_lets_a_store_that_is_closing_store_what_waits(database_url: str, owner_url: str) -> None:
    command = [sys.executable, "-c", PROGRAM, database_url, "told"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as process,
        psycopg.connect(owner_url) as owner,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        owner.execute("LOCK TABLE writer_batches")
        process.stdin.write("go on\n")
        assert process.stdout.readline() == "leaving\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        owner.rollback()
        _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints.endswith("KeyboardInterrupt\n")) == (-signal.SIGINT, True)
    assert stored(database_url) == {Kind.SUCCESS: 1000}


def test_a_handler_of_the_programs_own_keeps_the_signal(database_url: str) -> None:
    code, said, complaints = run(database_url, "handle", signal.SIGTERM)
    assert (code, said) == (1, ["leaving"])
    assert "a handler of the program's own" in complaints
    assert stored(database_url) == {Kind.SUCCESS: 500}


ENDING = """
import sys
from breaker_store.runtime.termination import ctrl_c_waits, exit_at_sigterm

with exit_at_sigterm() as closing, ctrl_c_waits(is_second=sys.argv[1] == "interrupted"):
    closing()
    print("ready", flush=True)
    sys.stdin.readline()
    print("closed", flush=True)
print("left", flush=True)
"""


def end(number: signal.Signals, times: int, how: str = "by itself") -> tuple[int, str]:
    """Send a signal to a program that is closing its store, and give how it ended and what it said."""
    command = [sys.executable, "-c", ENDING, how]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.1)  # two that come at once are one
        said, _ = process.communicate("go on\n" if times == 1 else None, timeout=30)
        return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("times", "said"), [(1, "closed\n"), (2, "")])
def test_a_signal_lets_a_store_that_is_closing_close_and_comes_through_the_second_time(
    number: signal.Signals, times: int, said: str
) -> None:
    assert end(number, times) == (-number, said)


def test_ctrl_c_comes_through_where_an_earlier_one_has_ended_the_block() -> None:
    assert end(signal.SIGINT, 1, "interrupted") == (-signal.SIGINT, "")


ENDED_BY_ANOTHER = """
import contextlib, os, signal, threading
from breaker_store.runtime.termination import exit_at_sigterm

stack = contextlib.ExitStack()
stack.enter_context(exit_at_sigterm())
thread = threading.Thread(target=stack.close)
thread.start()
thread.join()
print("closed", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_block_that_another_thread_ends_does_not_keep_sigterm_away() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDED_BY_ANOTHER], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "closed\n", "")


FINALIZING = """
import os, signal, threading
from breaker_store.runtime.termination import exit_at_sigterm

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

with exit_at_sigterm():
    try:
        Finalized()
        threading.Event().wait()
    finally:
        print("leaving", flush=True)
"""


def test_sigterm_is_not_lost_where_it_comes_while_an_object_is_finalized() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FINALIZING], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "leaving\n", "")


def test_a_forked_child_leaves_the_store_to_its_parent(database_url: str) -> None:
    code, said, complaints = run(database_url, "fork", None)
    assert (code, said) == (0, ["7", "left"]), complaints
    assert stored(database_url) == {Kind.SUCCESS: 500}
