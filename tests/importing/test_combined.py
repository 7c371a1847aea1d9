from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breaker_store.importing.combined import CombinedFormat
from breaker_store.importing.formats import ImportedOutcome

IDENTITY = bytes(16)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DEFAULT = CombinedFormat()
HASHED = CombinedFormat(user_id="hash")
TIME = "17/May/2015:10:05:03 +0000"


def line(
    *,
    client: str = "83.149.9.216",
    user: str = "-",
    time: str = TIME,
    request: str = "GET /a/b?c=d HTTP/1.1",
    status: str = "200",
    size: str = "203023",
    rest: str = ' "http://from/" "Mozilla/5.0 (X11)"',
) -> bytes:
    return f'{client} - {user} [{time}] "{request}" {status} {size}{rest}'.encode("latin-1")


def parse(text: bytes, combined: CombinedFormat = DEFAULT) -> ImportedOutcome:
    return combined(text, IDENTITY)


def microseconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]


def test_success() -> None:
    """A status below 400 is a success, with the operation and nothing of an error."""
    assert parse(line()) == ImportedOutcome(
        user_id=83 << 24 | 149 << 16 | 9 << 8 | 216,
        at_us=microseconds(2015, 5, 17, 10, 5, 3),
        succeeded=True,
        duration_us=None,
        operation="GET /a/b",
        error_type=None,
        error_message=None,
        line=IDENTITY,
    )


def test_failure() -> None:
    """A status from 400 on is a failure, which tells the status and the request."""
    outcome = parse(line(status="404"))
    assert not outcome.succeeded
    assert outcome.error_type == "HTTP 404"
    assert outcome.error_message == '"GET /a/b?c=d HTTP/1.1" 404'


@pytest.mark.parametrize(
    ("status", "succeeded"), [("399", True), ("400", False), ("499", False), ("599", False)]
)
def test_lowest_failure(status: str, succeeded: bool) -> None:
    """The default's lowest failure is 400."""
    assert parse(line(status=status)).succeeded is succeeded


@pytest.mark.parametrize(("status", "succeeded"), [("499", True), ("500", False)])
def test_lowest_failure_of_ones_own(status: str, succeeded: bool) -> None:
    """The lowest failure can be set."""
    assert parse(line(status=status), CombinedFormat(fail_on=500)).succeeded is succeeded


@pytest.mark.parametrize(
    "text",
    [
        line(rest=""),
        line(size="-"),
        line(user="John Doe"),
        line(user='""'),
        line(rest=' "-" "-"'),
        line(rest=r' "a \"quoted\" place" "agent \\"'),
        line(rest=' "-" "Mozilla/5.0" 0.004 "more"'),
        line(rest=' "-" "an agent that was cut'),
        line(rest=' "-" "caf\xe9"'),
        line() + b"  ",
    ],
)
def test_variants(text: bytes) -> None:
    """The common format, users with spaces, escaped quotes, further fields and a cut agent are all understood."""
    outcome = parse(text)
    assert (outcome.operation, outcome.succeeded) == ("GET /a/b", True)


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        ("29/Feb/2016:23:59:59 +0200", (2016, 2, 29, 21, 59, 59)),
        ("01/Jan/2016:00:30:00 +0530", (2015, 12, 31, 19, 0, 0)),
        ("31/Dec/2015:23:00:00 -0330", (2016, 1, 1, 2, 30, 0)),
        ("01/Jan/1970:00:00:00 +0000", (1970, 1, 1)),
        ("31/Dec/2199:23:59:59 +0000", (2199, 12, 31, 23, 59, 59)),
    ],
)
def test_times(time: str, moment: tuple[int, ...]) -> None:
    """A time with any offset is its instant."""
    assert parse(line(time=time)).at_us == microseconds(*moment)


@pytest.mark.parametrize(
    "time",
    [
        "30/Feb/2016:00:00:00 +0000",
        "01/Foo/2016:00:00:00 +0000",
        "01/Jan/2016:24:00:00 +0000",
        "01/Jan/1970:00:00:00 +0100",
        "31/Dec/2199:23:30:00 -0100",
        "01/Jan/2200:00:00:00 +0000",
        "01/Jan/0000:00:00:00 +0000",
        "2016-01-01T00:00:00Z",
        "17/May/2015:10:05:03",
        "17/May/2015:10:05:03 +0060",
        "17/May/2015:10:05:03 +2400",
    ],
)
def test_bad_times(time: str) -> None:
    """A time that does not exist, has no offset, or no place in the log is a reason to refuse the line."""
    with pytest.raises(ValueError):
        parse(line(time=time))


@pytest.mark.parametrize(
    ("request_line", "operation"),
    [
        ("-", None),
        ("", None),
        (r"\x16\x03\x01\x00", None),
        (r"GET /a\"b HTTP/1.1", r"GET /a\"b"),
        ("GET /a b HTTP/1.1", None),
        ("get /a HTTP/1.1", None),
        ("OPTIONS * HTTP/1.0", "OPTIONS *"),
        ("GET /? HTTP/1.1", "GET /"),
        ("GET /a#b HTTP/2.0", "GET /a"),
        ("PROPFIND http://host/a?b HTTP/1.1", "PROPFIND http://host/a"),
        ("GET /caf\xe9 HTTP/2", r"GET /caf\xe9"),
    ],
)
def test_operations(request_line: str, operation: str | None) -> None:
    """The operation is method and path without the query; a request that is none has no operation."""
    assert parse(line(request=request_line)).operation == operation


@pytest.mark.parametrize(
    "client", ["example.org", "2001:db8::1", "::ffff:1.2.3.4", "1.2.3", "1.2.3.256", "-"]
)
def test_other_clients(client: str) -> None:
    """A client that is no IPv4 address is a reason to refuse the line, and the reason tells the way out."""
    with pytest.raises(ValueError, match="--user-id hash"):
        parse(line(client=client))


def test_hashed_clients() -> None:
    """On demand, other clients become signed 64-bit ids of their own, and IPv4 addresses stay their integers."""
    ids = {parse(line(client=f"host-{n}.example"), HASHED).user_id for n in range(1_000)}
    assert len(ids) == 1_000
    assert all(-(2**63) <= user_id < 2**63 for user_id in ids)
    assert min(ids) < -(2**61)
    assert max(ids) > 2**61
    assert parse(line(), HASHED).user_id == parse(line()).user_id


def test_hash_never_changes() -> None:
    """A hashed client's id is the one that earlier versions stored."""
    assert parse(line(client="example.org"), HASHED).user_id == 2655631250893057461


@pytest.mark.parametrize(
    "text",
    [
        b"garbage",
        line()[:-45],
        line(rest=' "-" "'),
        line(rest=' "-"'),
        line(rest=" 0.004"),
        line(status="-"),
        line(status="000"),
        line(status="20"),
        line(request='GET "x" HTTP/1.1'),
        line(rest=' "half of a li') + line(),
        line()[:70] + line(),
        line()[:30] + line(),
        line()[:60] + line(),
        line(user='a"b'),
    ],
)
def test_bad_lines(text: bytes) -> None:
    """What is not in the format, half a line, and two lines glued together are refused."""
    with pytest.raises(ValueError, match="not in the combined or common log format"):
        parse(text)


@PATIENT
@given(st.integers(min_value=0))
def test_half_a_line(cut: int) -> None:
    """No half of a combined line, wherever it is cut, both counts and looks whole."""
    whole = line(rest=r' "http://from/\"" "Mozilla \"5.0\""')
    half = whole[: cut % len(whole)]
    if half.endswith(DEFAULT.closing):
        with pytest.raises(ValueError):
            parse(half)


FRAGMENTS = st.sampled_from(
    [b'"', b"\\", b" ", b"[", b"] ", b" - ", TIME.encode(), b"200", b"1.2.3.4", b"\xff", b"GET / HTTP/1.1"]
)


@PATIENT
@given(st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=40).map(b"".join)), st.booleans())
def test_any_bytes(text: bytes, hashed: bool) -> None:
    """Any line gives an outcome or a ValueError, nothing else."""
    try:
        outcome = parse(text, HASHED if hashed else DEFAULT)
    except ValueError:
        return
    assert -(2**63) <= outcome.user_id < 2**63


@PATIENT
@given(
    st.ip_addresses(v=4),
    st.datetimes(datetime(1970, 1, 3), datetime(2199, 12, 29)),
    st.integers(-23 * 60, 23 * 60),
    st.integers(100, 599),
)
def test_round_trip(client: object, moment: datetime, offset: int, status: int) -> None:
    """What a server would write is read back as it was."""
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 60:02}{abs(offset) % 60:02}"
    outcome = parse(line(client=str(client), time=f"{moment:%d/%b/%Y:%H:%M:%S} {zone}", status=str(status)))
    expected = int(moment.replace(microsecond=0, tzinfo=UTC).timestamp()) - offset * 60
    assert outcome.user_id == int(client)  # type: ignore[call-overload]
    assert outcome.at_us == expected * 1_000_000
    assert outcome.succeeded is (status < 400)
