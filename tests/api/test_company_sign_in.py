"""The README's example of another way to sign in, run as it stands there."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from breaker_store.core.access import Role
from breaker_store.postgres.access_tokens import create_token
from tests.addresses import as_maintenance
from tests.api.conftest import FromAnywhere
from tests.api.example_requests import PREFIX

EXAMPLE = "tests.api.company_sign_in"
KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


@pytest.fixture
async def client(database_url: str, monkeypatch) -> AsyncIterator[httpx.AsyncClient]:
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    monkeypatch.setenv("LOGIN_PUBLIC_KEY", public.decode())
    monkeypatch.setenv("BREAKER_STORE_DATABASE_URL", database_url)
    monkeypatch.delitem(sys.modules, EXAMPLE, raising=False)
    app = importlib.import_module(EXAMPLE).app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=FromAnywhere(app), base_url="https://admin.example") as client,
    ):
        yield client


def sign(key: rsa.RSAPrivateKey = KEY, algorithm: str = "RS256", **changes: object) -> dict[str, str]:
    claims = {
        "sub": "alice@example.com",
        "iss": "https://login.example.com",
        "aud": "breaker-store",
        "exp": time.time() + 60,
        "groups": ["breaker-operators"],
    }
    token = jwt.encode({**claims, **changes}, key, algorithm)
    return {"authorization": f"Bearer {token}"}


def test_the_readme_shows_it() -> None:
    root = Path(__file__).parents[2]
    example = Path(__file__).with_name("company_sign_in.py").read_text()
    assert any(example in readme.read_text(encoding="utf-8") for readme in root.glob("README*.md"))


async def test_an_operator_of_the_company_acts_and_the_log_has_the_name(client, succeed: Callable):
    await succeed(101, 1)
    assert (await client.post(f"{PREFIX}/101/reset", headers=sign())).status_code == 200
    history = await client.get(f"{PREFIX}/101/transitions", headers=sign())
    assert history.json()["transitions"][0]["actor"] == "alice@example.com"


async def test_others_of_the_company_read(client):
    assert (await client.get(f"{PREFIX}/summary", headers=sign(groups=["staff"]))).status_code == 200
    assert (await client.post(f"{PREFIX}/101/reset", headers=sign(groups=["staff"]))).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer x"},
        {"authorization": "Bearer é".encode("latin-1")},
        sign(exp=time.time() - 1),
        sign(aud="another"),
        sign(iss="https://evil.example"),
        sign(key=OTHER_KEY),
        sign(key="", algorithm="none"),
    ],
)
async def test_nobody_else_enters(client, headers):
    for path in (f"{PREFIX}/summary", "/docs", "/nowhere"):
        assert (await client.get(path, headers=headers)).status_code == 401


async def test_no_token_of_ours_is_needed_or_taken(client, database_url):
    assert (await client.get("/docs", headers=sign())).status_code == 200
    ours = await create_token(as_maintenance(database_url), "alice", Role.OPERATOR)
    assert (await client.get("/docs", headers={"authorization": f"Bearer {ours.token}"})).status_code == 401
