from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from breaker_store import BreakerStore
from breaker_store.integrations.opentelemetry import instrument
from tests.postgres import faults
from tests.postgres.living import trip

from .conftest import Invoke, outcome, write_lines

SENTENCE = (
    "User 101's breaker opened at 2025-11-26 03:00:12 UTC after 5 failures in a row within 3.2 s, all Unauthorized "
    '(the last: "401: the token was revoked"); it had been well for 6 days, since its first kept event; it lets the '
    "next call try, since its wait is over; none of the other 49 breakers opened within 5 minutes of it, so it looks "
    "like this bot, not the provider: check this bot's token and settings."
)


@pytest.fixture
def revoked(database_url: str) -> None:
    asyncio.run(faults.revoke_token(database_url))


def test_sentence_and_evidence(call: Invoke, revoked: None) -> None:
    """The sentence is the first line, and the evidence under it fits into 80 columns."""
    result = call("why", 101)
    assert (result.exit_code, result.stderr) == (0, "")
    sentence, blank, *evidence = result.stdout.splitlines()
    assert (sentence, blank) == (SENTENCE, "")
    assert max(map(len, evidence)) <= 80
    names = [line[:12].strip() for line in evidence if not line.startswith(" ")]
    assert names == [
        "verdict", "advice", "state now", "event", *["failure"] * 5, "last success", "well for", "policy", "since then",
        "others", "its trips", "rule", "limits",
    ]  # fmt: skip
    told = " ".join(line[12:].strip() for line in evidence)
    assert (
        "2025-11-26 03:00:09.000Z, sendMessage, 31.0 ms: Unauthorized: 401: the token was revoked (" in told
    )
    assert "may try again from 2025-11-26 03:01:12.200Z on" in told
    assert (
        "0 of the 50 breakers opened too, from 2025-11-26 02:55:12.200Z to 2025-11-26 03:05:12.200Z" in told
    )
    assert "1 in all; 0 in the 24 hours and 0 in the 7 days up to " in told


def test_json(call: Invoke, revoked: None) -> None:
    """`--json` gives the whole of it, with times in ISO 8601."""
    found = json.loads(call("why", 101, "--json").stdout)
    assert found["sentence"] == SENTENCE
    assert (found["verdict"], found["event"]["at"]) == ("this_bot", "2025-11-26T03:00:12.200000Z")
    assert json.loads(call("why", 101, found["event"]["id"], "--json").stdout)["event"] == found["event"]


def test_recovered(call: Invoke, database_url: str) -> None:
    """A trip that is over says how it ended."""
    asyncio.run(faults.slow_provider_down(database_url))
    told = " ".join(call("why", 101).stdout.split())
    assert "2 good probes, 0 failed probes; closed at 2025-11-26 03:05:00.800Z, after 4 min 48 s (" in told
    assert "39 of the 41 breakers opened too" in told


def test_negative_user_without_a_trip(call: Invoke, tmp_path: Path) -> None:
    """A user id may be negative; who never tripped gets a sentence."""
    call("import", write_lines(tmp_path / "lines", outcome(-7, 0)), "--format", "ndjson")
    result = call("why", -7)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "User -7's breaker is closed, and has never been open."


def test_hostile_texts(call: Invoke, tmp_path: Path) -> None:
    """What steers a terminal is escaped, in the sentence and under it, and nothing is taken for markup."""
    hostile = {
        "outcome": "failure",
        "error_type": "[bold]\x1b[2J",
        "error_message": "a\r\nb\u202e",
        "operation": "\x9b1m",
    }
    lines = [outcome(user, second, **hostile) for user in (1, 2) for second in range(5)]
    call("import", write_lines(tmp_path / "lines", *lines), "--format", "ndjson")
    output = call("why", 1).stdout
    assert all(line.isprintable() for line in output.splitlines())
    assert r"[bold]\x1b[2J" in output


def test_many_failures(call: Invoke, database_url: str) -> None:
    """Of many failures the last ten are shown."""
    from breaker_store.core.policy import Policy  # noqa: PLC0415
    from breaker_store.importing.run import import_outcomes  # noqa: PLC0415

    lines = faults.calls(101, faults.THREE_AM, [faults.SLOW] * 12)
    asyncio.run(import_outcomes(database_url, lines, policy=Policy(failure_threshold=12)))
    output = call("why", 101).stdout
    assert "2 earlier ones: see --json" in output
    assert output.count("\nfailure ") == 10


def test_unknown(call: Invoke, revoked: None) -> None:
    """An unknown user or transition is a line on stderr, and exit code 1."""
    result = call("why", 404)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no circuit breaker is known for user 404" in result.stderr
    result = call("why", 101, "12-34")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "breaker-store: no transition of user 101 has the id 12-34\n"


def test_no_id(call: Invoke) -> None:
    """What is no event's id is a mistake in the command line."""
    result = call("why", 101, "latest?")
    assert result.exit_code == 2
    assert "writer-seq" in result.stderr


async def trip_in_a_trace(database_url: str) -> str:
    """Trip a breaker within one trace; give its id as tracing products show it."""
    async with BreakerStore.open(database_url=database_url) as store:
        with instrument(store), TracerProvider().get_tracer("a bot").start_as_current_span("answer") as span:
            await trip(store.registry.get_breaker(101))
    return f"{span.get_span_context().trace_id:032x}"


def test_traces(call: Invoke, database_url: str) -> None:
    """Failures whose calls were traced are shown with the id of the trace, by `history` too."""
    trace_id = asyncio.run(trip_in_a_trace(database_url))
    evidence = call("why", 101).stdout.splitlines()[1:]
    assert max(map(len, evidence)) <= 80
    assert "".join(line[12:].replace(" ", "") for line in evidence).count(f"trace{trace_id}") == 5
    assert call("history", 101).stdout.count(f"trace {trace_id}") == 5
