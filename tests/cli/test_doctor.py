from __future__ import annotations

import asyncio
import json

import asyncpg

from .conftest import Invoke


def grant_update(owner_url: str) -> None:
    async def grant() -> None:
        owner = await asyncpg.connect(owner_url)
        await owner.execute("GRANT UPDATE ON breaker_events TO breaker_store_application")
        await owner.close()

    asyncio.run(grant())


def test_finds_what_is_wrong(call: Invoke, owner_url: str) -> None:
    """`doctor` has a line for each check, says what to do, and exits with 1 if something is wrong."""
    grant_update(owner_url)
    result = call("doctor")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    assert 'wrong role "breaker_store_application" may change what only is appended to: UPDATE on' in said
    assert "-> run `breaker-store roles apply` as the owner" in said


def test_json(call: Invoke, owner_url: str) -> None:
    """`--json` gives a line for each finding."""
    grant_update(owner_url)
    found = {line["check"]: line for line in map(json.loads, call("doctor", "--json").stdout.splitlines())}
    assert found["role"]["verdict"] == "wrong"
    assert found["connection"] == {
        "check": "connection",
        "verdict": "ok",
        "found": "the database answers",
        "advice": None,
    }


def test_nothing_wrong(invoke: Invoke, data_dir: object) -> None:
    """An embedded database that nobody has used yet is in order, and its doctor is the application."""
    result = invoke("doctor", "--data-dir", data_dir)
    assert result.exit_code == 0
    assert '"breaker_store_application" may append' in " ".join(result.stdout.split())


def test_a_database_that_can_not_be_had(invoke: Invoke, tmp_path: object) -> None:
    """What keeps the embedded Postgres from starting is a finding as well."""
    result = invoke("doctor", "--data-dir", "/dev/null")
    assert result.exit_code == 1
    assert "wrong connection" in " ".join(result.stdout.split())
