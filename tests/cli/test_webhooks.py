from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from standardwebhooks import Webhook as Verifier

from breaker_store import BreakerStore
from tests.alerting.making import SECRET
from tests.alerting.receiver import Receiver, receiving
from tests.postgres.living import QUICK, fail

from .conftest import Invoke, Start
from .test_serve import end, read_address


@contextmanager
def receiving_aside() -> Iterator[Receiver]:
    """Receive in a thread of its own: commands have their own event loops."""
    ready: list[Receiver] = []
    is_ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def receive() -> None:
        async with receiving() as receiver:
            ready.append(receiver)
            is_ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(receive(),))
    thread.start()
    try:
        assert is_ready.wait(10)
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture
def aside() -> Iterator[Receiver]:
    with receiving_aside() as receiver:
        yield receiver


@pytest.fixture
def file(tmp_path: Path, aside: Receiver) -> Path:
    return write_file(tmp_path, aside)


def write_file(folder: Path, receiver: Receiver) -> Path:
    path = folder / "webhooks.toml"
    path.write_text(
        f'[[webhook]]\nname = "team"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\ngroup_seconds = 0\n'
    )
    return path


def test_a_test_message_is_sent_signed(invoke: Invoke, file: Path, aside: Receiver) -> None:
    """`webhooks test` sends a signed message now, and says what the receiver said."""
    result = invoke("webhooks", "test", "team", "--webhooks", file)
    assert result.exit_code == 0
    assert result.stdout.startswith("127.0.0.1 took it in 0.")
    assert result.stdout.endswith(" s: 200 OK\n")
    [received] = aside.taken
    assert Verifier(SECRET).verify(received.body, received.headers)["type"] == "breaker.test"


def test_a_test_message_that_is_refused(invoke: Invoke, file: Path, aside: Receiver) -> None:
    """It fails when the message does not arrive, and shows no secret."""
    aside.always, aside.text = 403, f"forbidden: {aside.url}"
    result = invoke("webhooks", "test", "team", "--webhooks", file, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["name"], told["host"], told["delivered"]) == ("team", "127.0.0.1", False)
    assert told["answer"].startswith("403 Forbidden: forbidden")
    assert "secret-path" not in result.output


def test_a_webhook_that_the_file_does_not_have(invoke: Invoke, file: Path) -> None:
    """A name that is not in the file is a mistake in the command line, which says what names there are."""
    result = invoke("webhooks", "test", "tema", "--webhooks", file)
    assert result.exit_code == 2
    assert "team" in result.stderr
    assert invoke("webhooks", "test", "team").exit_code == 2


@pytest.mark.parametrize("command", [("serve",), ("webhooks", "list")])
def test_a_file_with_a_mistake(call: Invoke, file: Path, command: tuple[str, ...]) -> None:
    """A mistake in the file is one line that names file and key, before anything is started."""
    file.write_text(file.read_text() + "colour = 1\n")
    result = call(*command, "--webhooks", file)
    assert result.exit_code == 1
    assert result.stderr == f"breaker-store: {file}: webhook 'team': colour: there is no such key\n"


def test_none_to_list(call: Invoke) -> None:
    """`webhooks list` says when there is none."""
    result = call("webhooks", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "there are no webhooks\n")


async def store_row(database_url: str, name: str, columns: str = "", values: str = "") -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        f"INSERT INTO webhooks (name, position, holder, leased_until{columns})"
        f" VALUES ($1, 0, gen_random_uuid(), clock_timestamp(){values})",
        name,
    )
    await connection.close()


def test_list(call: Invoke, file: Path, database_url: str) -> None:
    """It lists those of the file and those that have begun, with what was wrong last, as text for a terminal."""
    columns = ", delivered, refused, last_error, last_error_at"
    values = ", 1234, 5, E'404 \\x1b[31mNot Found', '2026-11-26 09:00+00'"
    asyncio.run(store_row(database_url, "old", columns, values))
    header, old, team = call("webhooks", "list", "--webhooks", file).stdout.splitlines()
    assert header.split()[:6] == ["webhook", "host", "status", "behind", "delivered", "refused"]
    assert " ".join(old.split()) == (
        r"old - not in the file 0 1,234 5 - 2026-11-26 09:00:00Z 404 \x1b[31mNot Found"
    )
    assert team.split() == ["team", "127.0.0.1", "not", "begun", "-", "-", "-", "-", "-"]


def test_secrets_that_are_elsewhere(call: Invoke, invoke: Invoke, file: Path) -> None:
    """What is asked of one webhook needs no secret of another, and a list needs none at all."""
    others = '[[webhook]]\nname = "far"\nurl_env = "FAR_URL"\nsecret_env = "FAR_SECRET"\n'
    file.write_text(file.read_text() + others)
    _, far, team = call("webhooks", "list", "--webhooks", file).stdout.splitlines()
    assert (far.split()[:4], team.split()[:2]) == (["far", "-", "not", "begun"], ["team", "127.0.0.1"])
    assert invoke("webhooks", "test", "team", "--webhooks", file).exit_code == 0
    assert "FAR_URL" in invoke("webhooks", "test", "far", "--webhooks", file).stderr


def test_list_as_json(call: Invoke, file: Path, database_url: str) -> None:
    """With `--json` each is a line."""
    asyncio.run(store_row(database_url, "team"))
    [line] = call("webhooks", "list", "--webhooks", file, "--json").stdout.splitlines()
    assert json.loads(line) == {
        "name": "team",
        "host": "127.0.0.1",
        "status": "stopped",
        "behind": 0,
        "delivering": False,
        "delivered": 0,
        "refused": 0,
        "last_delivered_at": None,
        "last_error_at": None,
        "last_error": None,
    }


def test_forget(call: Invoke, database_url: str) -> None:
    """`webhooks forget` lets a webhook begin anew."""
    asyncio.run(store_row(database_url, "team"))
    assert call("webhooks", "forget", "team").stdout == "the webhook team begins anew\n"
    assert call("webhooks", "forget", "team").exit_code == 2
    assert call("webhooks", "list").stdout == ""


def serve(start: Start, database_url: str, file: Path) -> subprocess.Popen[str]:
    process = start("serve", "--port", 0, "--database-url", database_url, "--webhooks", file)
    read_address(process)
    return process


async def until(connection: asyncpg.Connection, condition: str) -> None:
    """Wait for what another process does in the database."""
    async with asyncio.timeout(30):
        while not await connection.fetchval(condition):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


BEGUN = "SELECT count(*) FROM webhooks WHERE leased_until > clock_timestamp()"
ALL_TOLD = "SELECT last = position FROM log_position, webhooks"


async def test_a_server_that_is_killed_again_and_again(
    start: Start, database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """Whenever `serve` is killed, every trip and recovery is told at least once, and each user's in order."""
    users = range(1, 9)
    async with receiving() as receiver, BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        file = write_file(tmp_path, receiver)
        process = serve(start, database_url, file)
        await until(connection, BEGUN)
        for round_number in range(3):
            for user_id in users:
                await fail(store.registry.get_breaker(user_id), 2)
                await store.flush()
                store.registry.get_breaker(user_id).reset()
                await store.flush()
            # At whatever it is doing: about to send, waiting for the answer, about to record it.
            receiver.answers.extend([200, 500, 200, "hang"][: round_number + 1])
            await receiver.wait_for_requests(len(receiver.received) + 1)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            receiver.answers.clear()
            await connection.execute("UPDATE webhooks SET leased_until = clock_timestamp()")
            process = serve(start, database_url, file)
        await until(connection, ALL_TOLD)
        assert end(process, signal.SIGTERM) == ""

    first_told: dict[str, int] = {}
    for number, received in enumerate(receiver.taken):
        for transition in received.json["transitions"]:
            first_told.setdefault(transition["id"], number)
    rows = await connection.fetch(
        "SELECT * FROM breaker_transitions WHERE kind IN (10, 13) ORDER BY position"
    )
    assert len(rows) == 3 * 2 * len(users)
    for user_id in users:
        told = [
            first_told[f"{row['writer_id']}-{row['writer_seq']}"] for row in rows if row["user_id"] == user_id
        ]
        assert told == sorted(told)


async def test_a_server_ends_quickly_while_a_receiver_hangs(
    start: Start, database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """SIGTERM ends `serve` within seconds though a receiver says nothing; the lease is free at once."""
    async with receiving() as receiver, BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        receiver.always = "hang"
        process = serve(start, database_url, write_file(tmp_path, receiver))
        await until(connection, BEGUN)
        await fail(store.registry.get_breaker(1), 2)
        await receiver.wait_for_requests(1)
        assert await asyncio.to_thread(end, process, signal.SIGTERM) == ""
    assert process.returncode == 0
    assert await connection.fetchval("SELECT leased_until <= clock_timestamp() FROM webhooks")
