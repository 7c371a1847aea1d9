"""The requests whose answers the API's documentation shows, and the history that they are about."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import httpx

from breaker_store.api.feed import Feed
from breaker_store.api.routers.stream import make_heartbeat
from breaker_store.core.events import EventId, Kind, Outcome, Permit, Verdict
from breaker_store.importing.formats import ImportedOutcome
from breaker_store.importing.run import import_outcomes
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.feed import AnotherHistory, FeedCursor
from breaker_store.rolling_up import roll_up_once
from breaker_store.runtime.clock import Clock
from tests.postgres.histories import Past

NOBODY_LISTENS = "postgresql://nobody@127.0.0.1:1/nothing"
END = "\n\n"
PREFIX = "/api/admin/system/circuit-breakers"
BOTS = "/api/admin/system/bots"

SECOND = 1_000_000
START = 1_772_330_400 * SECOND  # 2026-03-01T02:00:00Z
AN_INSTANT = "2026-03-01T02:00:07Z"
TWO_MINUTES = "bucket=minute&since=2026-03-01T02:01:00Z&until=2026-03-01T02:03:00Z"
LONG_AGO = "2019-01-01T00:00:00Z"
LONG_AHEAD = "2199-01-01T00:00:00Z"
REVOKED = ("Unauthorized", "401: the bot's token was revoked")
SLOW = ("TimeoutError", "no answer within 10 s")
STAGED = f"{PREFIX}/staged-resets"
JSON = {"content-type": "application/json"}
MAINTENANCE = {"expires_in_seconds": 7_200, "reason": "the provider is being moved"}
PROVIDER_IS_BACK = {"error": REVOKED[0], "per_second": 2, "reason": "the provider is back"}


def outcomes(
    user_id: int, letters: str, error: tuple[str, str], step: int = SECOND, start: int = START
) -> list[ImportedOutcome]:
    """Make an outcome a step for each letter: S for a success, F for a failure."""
    return [
        ImportedOutcome(
            user_id, start + number * step, letter == "S", 184_000, "sendMessage",
            *((None, None) if letter == "S" else error), (user_id * 2**90 + number).to_bytes(16, "big"),
        )
        for number, letter in enumerate(letters)
    ]  # fmt: skip


async def seed(database_url: str) -> None:
    """Store what happened to four bots in a night: one's token was revoked, two found the service slow; and to one just now."""
    histories = [
        outcomes(101, "SSSSSFFFFFF", REVOKED),
        outcomes(102, "SSSFFFFF" + "S" * 80, SLOW),
        outcomes(103, "SSSFFFFFF", SLOW),
        outcomes(104, "SSSSSSSS", SLOW),
    ]
    lines = sorted((line for history in histories for line in history), key=lambda line: line.at_us)
    await import_outcomes(database_url, lines)
    await import_outcomes(
        database_url, outcomes(105, "SSSFSSSFSSS", SLOW, start=time.time_ns() // 1_000 - 80 * SECOND)
    )
    await try_again(database_url)
    await roll_up_once(database_url)


async def try_again(database_url: str) -> None:
    """Have two of the last bot's calls be tried again just now: one went well in the end, the other did not."""
    log = PostgresEventLog(database_url, Clock())
    attempts = [(2, None), (2, SLOW[0]), (3, "http.TooManyRequests"), (4, SLOW[0])]
    at = time.time_ns() // 1_000 - 60 * SECOND
    events = [
        Outcome(
            Kind.FAILURE if error == SLOW[0] else Kind.SUCCESS, EventId(9, number), at + number * SECOND, Permit(0, 0),
            verdict=Verdict.COUNTED if error in {None, SLOW[0]} else Verdict.NOT_COUNTED,
            duration_us=150_000, operation="sendMessage", error_type=error, attempt=attempt,
        )
        for number, (attempt, error) in enumerate(attempts, 1)
    ]  # fmt: skip
    await Past(log).store(105, events)
    await log.close()


async def stream_events(database_url: str) -> str:
    """Give one event of each name that is on the stream, and what comes between them."""
    feed = Feed(database_url)
    resumed, elsewhere = FeedCursor(1), FeedCursor(1_000_000, EventId(1, 1))
    [started, transitions] = await read_chunks(feed, await feed.find(resumed), 2)
    [another_history] = await read_chunks(feed, await feed.find(elsewhere), 1)
    await feed.close()
    transition = transitions[: transitions.index(END) + len(END)]
    return f"{started}{transition}{make_heartbeat().encode().decode()}{another_history}"


async def read_chunks(feed: Feed, start: FeedCursor | AnotherHistory, number: int) -> list[str]:
    async with aclosing(feed.read(start)) as chunks:
        return [(await anext(chunks)).decode() for _ in range(number)]


@dataclass(frozen=True)
class Request:
    """A request, by the operation that answers it, and the status that it is answered with.

    Attributes:
        name: tells the examples of one status apart.
        database: seeded, bare (without tables), or away; or the seeded one, served to a viewer, or to nobody who is known.
        contended: others change every breaker at the moment in which somebody wants to.
        broken: somebody renamed a column.

    """

    operation: str
    path: str
    status: int = 200
    name: str = "answer"
    method: str = "GET"
    database: str = "seeded"
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    contended: bool = False
    broken: bool = False

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(
            self.method, self.path, json=self.body, content=self.content, headers=self.headers
        )

    @asynccontextmanager
    async def circumstances(self, owner: asyncpg.Connection) -> AsyncIterator[None]:
        if self.contended:
            await owner.execute(CONTEND)
        if self.broken:
            await owner.execute("ALTER TABLE log_position RENAME COLUMN breakers TO broken")
        yield
        if self.contended:
            await owner.execute("DROP TRIGGER change_first ON writer_batches")
        if self.broken:
            await owner.execute("ALTER TABLE log_position RENAME COLUMN broken TO breakers")


CONTEND = """
CREATE OR REPLACE FUNCTION change_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE breaker_states SET version = version + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER change_first BEFORE INSERT ON writer_batches
FOR EACH ROW EXECUTE FUNCTION change_first();
"""


def requests() -> Iterator[Request]:
    yield from answered()
    yield from refused()
    yield from troubled()


def answered() -> Iterator[Request]:
    yield Request("tell_alive", "/healthz")
    yield Request("tell_ready", "/readyz")
    yield Request("tell_metrics", "/metrics")
    yield Request("summarize", f"{PREFIX}/summary")
    yield Request("list_recorders", f"{PREFIX}/recorders")
    yield Request("show_state", f"{PREFIX}/101")
    yield Request("list_transitions", f"{PREFIX}/101/transitions")
    yield Request("list_events", f"{PREFIX}/101/events?limit=4")
    yield Request("list_breakers", f"{PREFIX}?state=open&sort=trips")
    yield Request("list_all_transitions", f"{PREFIX}/transitions?kind=opened&limit=2")
    yield Request("explain_transition", f"{PREFIX}/101/transitions/latest/explanation")
    yield Request("explain_transition", f"{PREFIX}/102/transitions/latest/explanation", name="recovered")
    yield Request("explain_transition", f"{PREFIX}/104/transitions/latest/explanation", name="never tripped")
    yield Request("summarize", f"{PREFIX}/summary?at={AN_INSTANT}", name="at an instant")
    yield Request("show_state", f"{PREFIX}/101?at={AN_INSTANT}", name="at an instant")
    yield Request("reset", f"{PREFIX}/103/reset", method="POST", body={"reason": "the service is well again"})
    yield from healthy()
    yield from acted()
    yield from staged()


def healthy() -> Iterator[Request]:
    """How bots are and were."""
    yield Request("show_fleet_health", f"{BOTS}/health")
    yield Request("list_unhealthy_bots", f"{BOTS}/unhealthy?limit=1")
    yield Request("show_fleet_history", f"{BOTS}/health/history?{TWO_MINUTES}")
    yield Request("show_bot_health", f"{BOTS}/105/health")
    yield Request("show_retries", f"{BOTS}/105/retries?hours=1")
    yield Request("show_bot_history", f"{BOTS}/102/health/history?{TWO_MINUTES}")


def acted() -> Iterator[Request]:
    """What is done to one breaker by hand."""
    user = f"{PREFIX}/104"
    yield Request("force_open", f"{user}/force-open", method="POST", body=MAINTENANCE)
    yield Request("release", f"{user}/release", method="POST", body={"reason": "it was quicker than that"})
    yield Request(
        "set_policy", f"{user}/policy", method="PUT", body={"failure_threshold": 10, "reason": "flaky"}
    )
    yield Request("clear_policy", f"{user}/policy", method="DELETE")
    yield Request("set_policy", f"{user}/policy", method="PUT", body={"timeout_seconds": 5}, name="one field")
    yield Request("suspend", f"{BOTS}/104/suspend", method="POST", body={"reason": "the bill is not paid"})
    yield Request("show_state", user, name="suspended")
    for name, path in (("reset", "reset"), ("force_open", "force-open"), ("release", "release")):
        yield Request(name, f"{user}/{path}", 409, "suspended", method="POST")
    yield Request("resume", f"{BOTS}/104/resume", method="POST", body={"reason": "the bill is paid"})


def staged() -> Iterator[Request]:
    yield Request("count_matches", f"{STAGED}/matches?error={REVOKED[0]}")
    yield Request("stage_reset", STAGED, 201, method="POST", body=PROVIDER_IS_BACK)
    yield Request("list_staged_resets", STAGED)
    yield Request("show_staged_reset", f"{STAGED}/1")
    yield Request("stop_staged_reset", f"{STAGED}/1/stop", method="POST")


def refused() -> Iterator[Request]:
    """What the caller can mend."""
    for name, path in (("show_state", ""), ("list_transitions", "/transitions"), ("list_events", "/events")):
        yield Request(name, f"{PREFIX}/404404{path}", 404, "unknown user")
        yield Request(name, f"{PREFIX}/me{path}", 422, "no user id")
    for name in ("transitions", "events"):
        yield Request(f"list_{name}", f"{PREFIX}/101/{name}?cursor=page-2", 400, "bad cursor")
    yield Request("list_recorders", f"{PREFIX}/recorders?since_hours=0", 422, "too few hours")
    yield Request("list_breakers", f"{PREFIX}?cursor=page-2", 400, "bad cursor")
    yield Request("list_breakers", f"{PREFIX}?state=ajar", 422, "no such state")
    yield Request("list_all_transitions", f"{PREFIX}/transitions?cursor=page-2", 400, "bad cursor")
    yield Request("list_all_transitions", f"{PREFIX}/transitions?error=", 422, "no error's name")
    yield Request("stream_transitions", f"{PREFIX}/transitions/stream?after=me", 400, "no id of the stream")
    yield Request("stream_transitions", f"{PREFIX}/transitions/stream?since=1", 422, "unknown parameter")
    yield from refused_explanations()
    yield from refused_healths()
    yield from refused_instants()
    yield from refused_actions()
    yield from refused_stagings()


def refused_explanations() -> Iterator[Request]:
    name, path = "explain_transition", f"{PREFIX}/101/transitions"
    yield Request(name, f"{PREFIX}/404404/transitions/latest/explanation", 404, "unknown user")
    yield Request(name, f"{path}/1-1/explanation", 404, "unknown transition")
    yield Request(name, f"{path}/first/explanation", 422, "no event's id")


def refused_healths() -> Iterator[Request]:
    yield Request("show_retries", f"{BOTS}/105/retries?hours=1000", 422, "too long")
    for name, path in (
        ("show_bot_health", "health"),
        ("show_bot_history", "health/history"),
        ("show_retries", "retries"),
    ):
        yield Request(name, f"{BOTS}/404404/{path}", 404, "unknown user")
        yield Request(name, f"{BOTS}/me/{path}", 422, "no user id")
    for name, path in (("show_bot_history", "101/health/history"), ("show_fleet_history", "health/history")):
        yield Request(name, f"{BOTS}/{path}?bucket=minute&since={LONG_AGO}", 422, "too long")
    yield Request("show_fleet_history", f"{BOTS}/health/history?bucket=week", 422, "no such bucket")
    yield Request("list_unhealthy_bots", f"{BOTS}/unhealthy?cursor=page-2", 400, "bad cursor")
    yield Request("list_unhealthy_bots", f"{BOTS}/unhealthy?limit=0", 422, "no limit")


def refused_instants() -> Iterator[Request]:
    for name, path in (("summarize", "summary"), ("show_state", "101")):
        yield Request(name, f"{PREFIX}/{path}?at={LONG_AGO}", 410, "before the horizon")
        yield Request(name, f"{PREFIX}/{path}?at={LONG_AHEAD}", 422, "yet to come")


def refused_actions() -> Iterator[Request]:
    for name, prefix, path, method, body in (
        ("reset", PREFIX, "reset", "POST", None),
        ("force_open", PREFIX, "force-open", "POST", None),
        ("release", PREFIX, "release", "POST", None),
        ("set_policy", PREFIX, "policy", "PUT", {"success_threshold": 3}),
        ("clear_policy", PREFIX, "policy", "DELETE", None),
        ("suspend", BOTS, "suspend", "POST", None),
        ("resume", BOTS, "resume", "POST", None),
    ):
        action = Request(name, f"{prefix}/104/{path}", method=method, body=body)
        yield replace(action, status=404, name="unknown user", path=f"{prefix}/404404/{path}")
        yield replace(action, status=412, name="moved on", headers={"if-match": '"1-00000000"'})
        if name != "clear_policy":
            yield replace(action, status=422, name="unknown field", body={"because": "I can"})
            yield replace(action, status=400, name="no text", body=None, content=b"\xff", headers=JSON)
        if name not in {"release", "resume"}:
            yield replace(action, status=409, name="contended", contended=True)
    yield Request("clear_policy", f"{PREFIX}/me/policy", 422, "no user id", method="DELETE")
    yield Request("release", f"{PREFIX}/104/release", 409, "not forced open", method="POST")
    yield Request("resume", f"{BOTS}/104/resume", 409, "not suspended", method="POST")
    past = {"expires_at": LONG_AGO}
    yield Request("force_open", f"{PREFIX}/104/force-open", 422, "has passed", method="POST", body=past)


def refused_stagings() -> Iterator[Request]:
    stage = Request("stage_reset", STAGED, method="POST", body=PROVIDER_IS_BACK | {"error": "NoSuchError"})
    yield replace(stage, status=409, name="nobody matches")
    yield replace(stage, status=422, name="everybody", body={"per_second": 1})
    yield replace(stage, status=400, name="no text", body=None, content=b"\xff", headers=JSON)
    yield Request("count_matches", f"{STAGED}/matches", 422, "everybody")
    for name, path, method in (("show_staged_reset", "", "GET"), ("stop_staged_reset", "/stop", "POST")):
        yield Request(name, f"{STAGED}/404{path}", 404, "unknown", method=method)
        yield Request(name, f"{STAGED}/me{path}", 422, "no number", method=method)


def troubled() -> Iterator[Request]:
    """What any request can be answered with."""
    yield Request("summarize", f"{PREFIX}/summary", 500, "defect", broken=True)
    stream = Request("stream_transitions", f"{PREFIX}/transitions/stream")
    for request in (*answered(), stream):
        if request.name != "answer":
            continue
        if request.operation != "tell_alive":
            yield replace(request, status=503, name="database away", database="away")
            yield replace(request, status=503, name="database without tables", database="bare")
        if request.path not in {"/healthz", "/readyz"}:
            yield from turned_away(request)


def turned_away(request: Request) -> Iterator[Request]:
    """Whom the door does not let in."""
    yield replace(request, status=401, name="no valid token", database="to nobody who is known")
    yield replace(request, status=403, name="a name that is none of this machine's",
                  headers={"host": "rebound.example"})  # fmt: skip
    if request.method != "GET":
        yield replace(request, status=403, name="a viewer acts", database="to a viewer")
