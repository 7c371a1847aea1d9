from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breaker_store.importing.formats import ImportedOutcome
from breaker_store.importing.ndjson import NdjsonFormat

IDENTITY = bytes(16)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str | bytes) -> ImportedOutcome:
    return NdjsonFormat()(text.encode() if isinstance(text, str) else text, IDENTITY)


def line(**changes: str) -> str:
    """Give a line, with some of its values written as they are given."""
    fields = {"user_id": "101", "at": "1431857103", "outcome": '"success"'} | changes
    return "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"


def refusal(text: str | bytes) -> str:
    with pytest.raises(ValueError) as caught:
        parse(text)
    return str(caught.value)


def test_least() -> None:
    """A user, a time and an outcome are enough."""
    assert parse(line()) == ImportedOutcome(101, 1431857103 * SECOND, True, None, None, None, None, IDENTITY)


def test_most() -> None:
    """The optional fields are taken on, and keys that are not known are ignored."""
    text = line(
        outcome='"failure"',
        duration_ms="31.25",
        operation='"send_message"',
        error_type='"TimeoutError"',
        error_message='"no answer"',
        other='{"nested": [1, {"user_id": 3}]}',
    )
    assert parse(text) == ImportedOutcome(
        101, 1431857103 * SECOND, False, 31_250, "send_message", "TimeoutError", "no answer", IDENTITY
    )


def test_null() -> None:
    """Null in an optional field is the same as leaving it out."""
    nothing = line(duration_ms="null", operation="null", error_type="null", error_message="null")
    assert parse(nothing) == parse(line())


@pytest.mark.parametrize(
    ("at", "microseconds"),
    [
        ('"2015-05-17T10:05:03Z"', 1431857103 * SECOND),
        ('"2015-05-17T12:05:03.25+02:00"', 1431857103 * SECOND + 250_000),
        ('"2015-05-17 10:05:03.000001+00:00"', 1431857103 * SECOND + 1),
        ('"2015-05-17T10:05:03.0000019Z"', 1431857103 * SECOND + 1),
        ('"20150517T100503Z"', 1431857103 * SECOND),
        ("0", 0),
        ("-0.0", 0),
        ("1e9", 10**9 * SECOND),
        ("1431857103.123457", 1431857103 * SECOND + 123_457),
        # As floats, these would be one microsecond less.
        ("1431857103.000001", 1431857103 * SECOND + 1),
        ("4102444800.999999", 4102444800 * SECOND + 999_999),
        ("1431857103.1234569999999999999999999999999", 1431857103 * SECOND + 123_456),
        ("1e-999999", 0),
        ("7258118399.999999", 7258118400 * SECOND - 1),
        ('"2199-12-31T23:59:59.999999Z"', 7258118400 * SECOND - 1),
    ],
)
def test_times(at: str, microseconds: int) -> None:
    """Times are exact to the microsecond, as text and as number; what is finer is cut off."""
    assert parse(line(at=at)).at_us == microseconds


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ('"2015-05-17T10:05:03"', "offset from UTC"),
        ('"2015-05-17"', "offset from UTC"),
        ('"yesterday"', "ISO 8601"),
        ('"1431857103"', "ISO 8601"),
        ('""', "ISO 8601"),
        (r'"\ud800"', "ISO 8601"),
        ("true", "ISO 8601 text, or a number"),
        ("[]", "ISO 8601 text, or a number"),
        ("null", "at is missing"),
        ("-1", "1970"),
        ("-0.000001", "1970"),
        ("7258118400", "2199"),
        ("1e999999", "2199"),
        ("1e99999999", "2199"),
        ("1" + "0" * 4000, "2199"),
        ('"1969-12-31T23:59:59.999999Z"', "1970"),
        ('"0001-01-01T00:00:00+23:59"', "1970"),
        ('"9999-12-31T23:59:59-23:59"', "2199"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
    ],
)
def test_bad_times(at: str, reason: str) -> None:
    """A time that is naive, no time, or without a place in the log is refused, with the reason."""
    assert reason in refusal(line(at=at))


@pytest.mark.parametrize("user_id", [str(-(2**63)), str(2**63 - 1), "0", "-0"])
def test_users(user_id: str) -> None:
    """A user id is any whole number of signed 64 bits."""
    assert parse(line(user_id=user_id)).user_id == int(user_id)


@pytest.mark.parametrize(
    "user_id", [str(-(2**63) - 1), str(2**63), '"101"', "101.0", "1e2", "true", "[]", "{}", "NaN"]
)
def test_bad_users(user_id: str) -> None:
    """A user id that is too large, text, a fraction or a bool is refused."""
    assert refusal(line(user_id=user_id))


@pytest.mark.parametrize("outcome", ['"rejected"', '"SUCCESS"', "true", "1", "[]", "{}", '""'])
def test_bad_outcomes(outcome: str) -> None:
    """An outcome is `success` or `failure`, nothing else."""
    assert "outcome must be" in refusal(line(outcome=outcome))


@pytest.mark.parametrize(
    ("duration", "microseconds"),
    [
        ("0", 0),
        ("0.0009", 0),
        ("0.001", 1),
        ("1500", 1_500_000),
        ("1e-9999999", 0),
        ("9223372036854774.999", 9223372036854774999),
    ],
)
def test_durations(duration: str, microseconds: int) -> None:
    """A duration is whole microseconds, what is finer is cut off."""
    assert parse(line(duration_ms=duration)).duration_us == microseconds


@pytest.mark.parametrize(
    "duration", ["-1", "-0.001", "1e300", "1e9999999", "9223372036854775", '"5"', "true", "Infinity", "[1]"]
)
def test_bad_durations(duration: str) -> None:
    """A duration that is negative, not finite, too long or no number is refused."""
    assert refusal(line(duration_ms=duration))


@pytest.mark.parametrize("key", ["operation", "error_type", "error_message"])
@pytest.mark.parametrize("value", ["1", "true", "[]", '{"a": "b"}', "0.5"])
def test_bad_texts(key: str, value: str) -> None:
    """A text that is none is refused."""
    assert f"{key} must be text" in refusal(line(**{key: value}))


def test_texts_as_they_are() -> None:
    """NUL and lone surrogates are left to the cleaning, which every text passes before it is stored."""
    assert parse(line(operation=r'"a\u0000b\ud800c"')).operation == "a\x00b\ud800c"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "user_id is missing"),
        ("[]", "not an object"),
        ("1", "not an object"),
        ("null", "not an object"),
        ('"text"', "not an object"),
        ("{", "not JSON"),
        (line()[:-1], "not JSON"),
        (line() + ",", "not JSON"),
        (line() + line(), "not JSON"),
        ("{'user_id': 1}", "not JSON"),
        ("\ufeff" + line(), "not JSON"),
        (line(operation='"a\nb"'), "not JSON"),
        (line()[:-1] + ', "user_id": 5}', "a key comes twice"),
        (line(other='{"a": 1, "a": 1}'), "a key comes twice"),
        (line(other="[" * 100_000 + "]" * 100_000), "nested too deeply"),
        (line(other='{"a":' * 100_000 + "1" + "}" * 100_000), "nested too deeply"),
        (line(other="1e99999999999999999999"), "exponent"),
        (b'{"user_id": "\xff"}', "not UTF-8 (byte 14)"),
        ("{}".encode("utf-16"), "not UTF-8"),
    ],
)
def test_bad_lines(text: str | bytes, reason: str) -> None:
    """What is not one object in JSON and UTF-8 is refused, with the reason."""
    assert reason in refusal(text)


def test_huge_number() -> None:
    """A number of more digits than Python reads is refused."""
    assert refusal(line(other="1" * 10_000))


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
KEYS = ["user_id", "at", "outcome", "duration_ms", "operation", "error_type", "error_message"]


@PATIENT
@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_object(fields: dict[str, object]) -> None:
    """Any object gives an outcome or a ValueError, nothing else."""
    good = {"user_id": 1, "at": 1, "outcome": "success"}
    for candidate in (fields, good | fields):
        try:
            outcome = parse(json.dumps(candidate))
        except ValueError:
            continue
        assert 0 <= outcome.at_us < 7258118400 * SECOND


@PATIENT
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet='{}[]":,0123456789eE+-.tfn \\u', max_size=100).map(str.encode),
    )
)
def test_any_bytes(text: bytes) -> None:
    """Any line gives an outcome or a ValueError, nothing else."""
    try:
        parse(text)
    except ValueError:
        return


OPTIONAL_TEXT = st.none() | st.text(alphabet=st.characters())


@PATIENT
@given(
    user_id=st.integers(-(2**63), 2**63 - 1),
    at_us=st.integers(0, 7258118400 * SECOND - 1),
    succeeded=st.booleans(),
    duration_us=st.none() | st.integers(0, 10**15),
    operation=OPTIONAL_TEXT,
    error_type=OPTIONAL_TEXT,
    error_message=OPTIONAL_TEXT,
    offset_minutes=st.integers(-23 * 60, 23 * 60),
    as_number=st.booleans(),
)
def test_round_trip(
    *,
    user_id: int,
    at_us: int,
    succeeded: bool,
    duration_us: int | None,
    operation: str | None,
    error_type: str | None,
    error_message: str | None,
    offset_minutes: int,
    as_number: bool,
) -> None:
    """What another system writes, with times as text in any zone or as numbers, is read back as it was."""
    moment = (EPOCH + timedelta(microseconds=at_us)).astimezone(timezone(timedelta(minutes=offset_minutes)))
    fields = {
        "user_id": user_id,
        "at": "AT",
        "outcome": "success" if succeeded else "failure",
        "duration_ms": "DURATION",
        "operation": operation,
        "error_type": error_type,
        "error_message": error_message,
    }
    at = f"{at_us // SECOND}.{at_us % SECOND:06}" if as_number else f'"{moment.isoformat()}"'
    duration = "null" if duration_us is None else f"{duration_us // 1000}.{duration_us % 1000:03}"
    text = json.dumps(fields).replace('"AT"', at, 1).replace('"DURATION"', duration, 1)
    expected = ImportedOutcome(
        user_id, at_us, succeeded, duration_us, operation, error_type, error_message, IDENTITY
    )
    assert parse(text) == expected
