from __future__ import annotations

from pathlib import Path

import pytest

from breaker_store.cli.location import locate
from breaker_store.settings import DATA_DIR_VARIABLE, DATABASE_URL_VARIABLE, Location, default_data_dir

from .conftest import Invoke


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_URL_VARIABLE, raising=False)
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


def test_default() -> None:
    """With nothing said, the data are in the platform's folder."""
    assert locate(None, None) == Location(data_dir=default_data_dir())


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is asked where no option is given; an empty variable says nothing."""
    monkeypatch.setenv(DATABASE_URL_VARIABLE, "")
    monkeypatch.setenv(DATA_DIR_VARIABLE, "/data")
    assert locate(None, None) == Location(data_dir=Path("/data"))


def test_option_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option goes before the environment, also when that names the other kind."""
    monkeypatch.setenv(DATABASE_URL_VARIABLE, "postgresql://environment/")
    assert locate("postgresql://option/", None) == Location("postgresql://option/")
    assert locate(None, "/data") == Location(data_dir=Path("/data"))


def test_both_in_the_environment(invoke: Invoke) -> None:
    """Two databases in the environment are an error."""
    both = {DATABASE_URL_VARIABLE: "postgresql://there/", DATA_DIR_VARIABLE: "/data"}
    result = invoke("state", 1, env=both)
    assert result.exit_code == 1
    assert "exclude each other" in result.stderr


@pytest.mark.parametrize(
    "options",
    [["--database-url", "postgresql://there/", "--data-dir", "/data"], ["--data-dir", ""]],
)
def test_mistakes(invoke: Invoke, options: list[str]) -> None:
    """Both options at once, or one without a value, are a mistake."""
    assert invoke("state", 1, *options).exit_code == 2


def test_address_of_another_product(invoke: Invoke) -> None:
    """An address that is none of Postgres is an error, and its password is not shown."""
    result = invoke("state", 1, "--database-url", "mysql://me:secret@there/")
    assert result.exit_code == 1
    assert "postgresql://" in result.stderr
    assert "secret" not in result.stderr
