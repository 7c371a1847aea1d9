"""What an error of the driver means, and which of an address's servers is taken."""

from __future__ import annotations

import asyncpg
import pytest

from breaker_store.errors import EventRefusedError, LedgerError, LogUnavailableError, StoreError
from breaker_store.postgres.connecting import divide_hosts, reach, translated


@pytest.mark.parametrize(
    ("sqlstate", "meaning"),
    [
        pytest.param("08006", LogUnavailableError, id="connection failure"),
        pytest.param("25006", LogUnavailableError, id="read-only transaction"),
        pytest.param("40001", LogUnavailableError, id="serialization failure"),
        pytest.param("40P01", LogUnavailableError, id="deadlock"),
        pytest.param("53100", LogUnavailableError, id="disk full"),
        pytest.param("53200", LogUnavailableError, id="out of memory"),
        pytest.param("53300", LogUnavailableError, id="too many connections"),
        pytest.param("55P03", LogUnavailableError, id="lock not available"),
        pytest.param("57014", LogUnavailableError, id="query canceled"),
        pytest.param("57P01", LogUnavailableError, id="admin shutdown"),
        pytest.param("57P02", LogUnavailableError, id="crash shutdown"),
        pytest.param("57P03", LogUnavailableError, id="cannot connect now"),
        pytest.param("58030", LogUnavailableError, id="input or output error"),
        pytest.param("XX000", LogUnavailableError, id="internal error"),
        pytest.param("22003", EventRefusedError, id="number out of range"),
        pytest.param("22021", EventRefusedError, id="character not in repertoire"),
        pytest.param("23514", EventRefusedError, id="check violation"),
        pytest.param("54000", EventRefusedError, id="program limit exceeded"),
        pytest.param("23505", LedgerError, id="unique violation"),
        pytest.param("BS001", LedgerError, id="the ledger contradicts"),
    ],
)
def test_an_error_of_the_server_is_told_by_what_can_be_done_about_it(
    sqlstate: str, meaning: type[StoreError]
) -> None:
    error = asyncpg.PostgresError.new({"C": sqlstate, "M": "out of order\nDETAIL: secret data"})
    told = translated(error)
    assert type(told) is meaning
    assert str(told).endswith("out of order")


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError("reset by peer"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.TargetServerAttributeNotMatched("no such host"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_on_the_way_to_the_server_passes_by_itself(error: Exception) -> None:
    told = translated(error)
    assert type(told) is LogUnavailableError
    assert type(error).__name__ in str(told)


@pytest.mark.parametrize(
    ("address", "divided"),
    [
        ("postgresql://h/db", ["postgresql://h/db"]),
        ("postgresql://u:p%40w@h:5/db?a=b%26c", ["postgresql://u:p%40w@h:5/db?a=b%26c"]),
        ("postgresql://a,b:6/db", ["postgresql://a/db", "postgresql://b:6/db"]),
        (
            "postgresql://u:w@[::1]:5,b:6/db?sslmode=disable",
            ["postgresql://u:w@[::1]:5/db?sslmode=disable", "postgresql://u:w@b:6/db?sslmode=disable"],
        ),
        ("postgresql://u@/db?host=/run/a&port=5", ["postgresql://u@/db?host=/run/a&port=5"]),
        (
            "postgresql://u@/db?host=a,b&port=5,6",
            ["postgresql://u@/db?host=a&port=5", "postgresql://u@/db?host=b&port=6"],
        ),
        (
            "postgresql://u@/db?host=a,b&port=5",
            ["postgresql://u@/db?host=a&port=5", "postgresql://u@/db?host=b&port=5"],
        ),
        ("postgresql://u@/db?host=a:5,b", ["postgresql://u@/db?host=a%3A5", "postgresql://u@/db?host=b"]),
        ("postgresql://u@/db?host=a,b,c&port=5,6", ["postgresql://u@/db?host=a,b,c&port=5,6"]),
        ("postgresql:///db", ["postgresql:///db"]),
        ("postgresql://", ["postgresql://"]),
    ],
)
def test_an_address_of_several_hosts_is_one_for_each(address: str, divided: list[str]) -> None:
    assert divide_hosts(address) == divided


async def test_hosts_that_fail_alike_are_told_once() -> None:
    with pytest.raises(LogUnavailableError) as caught:
        await reach("postgresql://u@127.0.0.1:1,127.0.0.1:1/db", writing=True, timeout=5)
    assert str(caught.value).count("ConnectionRefusedError") == 1


async def test_an_address_that_makes_no_sense_is_told_as_such() -> None:
    with pytest.raises(LogUnavailableError, match="3 hosts"):
        await reach("postgresql://u@/db?host=a,b,c&port=5,6", writing=True, timeout=5)
