"""Seeded faults, in a real log: what `why` says of them, word for word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store import control
from breaker_store.core.events import EventId, Kind
from breaker_store.core.fleet_verdict import FleetVerdict
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres import queries
from breaker_store.postgres.explaining import UnknownTransitionError, why
from breaker_store.postgres.explanation_items import ErrorCount, ExplanationItem
from breaker_store.postgres.reading import create_engine, reading

from . import faults
from .faults import DAY, MINUTE, NETWORK, REVOKED, SECOND, SLOW, THREE_AM, USER

Ask = Callable[..., Awaitable[ExplanationItem]]

REVOKED_SENTENCE = (
    "User 101's breaker opened at 2025-11-26 03:00:12 UTC after 5 failures in a row within 3.2 s, all Unauthorized "
    '(the last: "401: the token was revoked"); it had been well for 6 days, since its first kept event; it lets the '
    "next call try, since its wait is over; none of the other 49 breakers opened within 5 minutes of it, so it looks "
    "like this bot, not the provider: check this bot's token and settings."
)


CAUSES = [{"id": "9-1", "at": "2025-11-26T04:04:00+00:00", "error_type": "Unauthorized", "error_message": None,
           "operation": None, "duration_us": None}]  # fmt: skip


@pytest.fixture
async def ask(database_url: str) -> AsyncIterator[Ask]:
    """Ask on a connection of its own each time."""
    engine = create_engine(database_url)

    async def ask(user_id: int = USER, event_id: EventId | None = None) -> ExplanationItem:
        async with reading(engine) as connection:
            return await why(connection, user_id, event_id)

    yield ask
    await engine.dispose()


async def ids(connection: asyncpg.Connection, user_id: int = USER) -> list[EventId]:
    """List a user's transitions, oldest first."""
    rows = await connection.fetch(
        "SELECT writer_id, writer_seq FROM breaker_transitions WHERE user_id = $1 ORDER BY version", user_id
    )
    return [EventId(*row) for row in rows]


async def test_a_revoked_token_is_this_bots_trouble(database_url, ask):
    await faults.revoke_token(database_url)
    found = await ask()
    assert found.sentence == REVOKED_SENTENCE
    assert found.verdict is FleetVerdict.THIS_BOT
    assert found.advice == "check this bot's token and settings"


async def test_a_provider_that_is_away_for_2000_is_everybodys_trouble(database_url, ask):
    await faults.take_provider_away(database_url)
    found = await ask()
    assert found.sentence == (
        "User 101's breaker opened at 2025-11-26 03:00:12 UTC after 5 failures in a row within 3.2 s, all NetworkError "
        '(the last: "Cannot connect to host api.example.org:443"); it had been well for 6 days, since its first kept '
        "event; it lets the next call try, since its wait is over; all 1,999 other breakers opened within 5 minutes of "
        "it with the same error, so it looks like the provider, not this bot: wait for the provider."
    )
    assert found.verdict is FleetVerdict.EVERYBODY
    assert (found.around.opened_count, found.around.same_error_count, found.around.breakers) == (
        1_999,
        1_999,
        2_000,
    )
    assert not found.around.is_lower_bound


async def test_a_slow_provider_that_recovers_is_over(database_url, ask):
    await faults.slow_provider_down(database_url)
    found = await ask()
    assert found.sentence == (
        "User 101's breaker opened at 2025-11-26 03:00:12 UTC after 5 failures in a row within 3.2 s, all TimeoutError; "
        "it had been well for 6 days, since its first kept event; it recovered by itself 4 min 48 s later, at "
        "2025-11-26 03:05:00 UTC; 39 of the other 40 breakers opened within 5 minutes of it with the same error, so it "
        "looks like the provider, not this bot: it is over, so nothing is left to do."
    )
    assert found.verdict is FleetVerdict.EVERYBODY
    assert found.state == "closed"
    assert (found.since.probes_succeeded, found.since.ended_by.kind) == (2, "closed")


async def test_a_revoked_token_amid_an_outage_is_still_this_bots_trouble(database_url, ask):
    await faults.break_two_things(database_url)
    found = await ask()
    assert found.sentence == (
        "User 101's breaker opened at 2025-11-26 03:01:03 UTC after 5 failures in a row within 3.2 s, all Unauthorized "
        '(the last: "401: the token was revoked"); it had been well for 6 days, since its first kept event; it lets the '
        "next call try, since its wait is over; none of the other 2,002 breakers opened within 5 minutes of it with "
        "this error (2,000 did with others, mostly NetworkError, which looks like another trouble), so it looks like "
        "this bot, not the provider: check this bot's token and settings."
    )
    assert found.verdict is FleetVerdict.THIS_BOT
    assert found.around.by_error == [ErrorCount("NetworkError", 2_000)]


async def test_those_in_the_outage_are_told_of_the_outage(database_url, ask):
    await faults.break_two_things(database_url, many=200)
    found = await ask(1_100)
    assert found.verdict is FleetVerdict.EVERYBODY
    assert found.sentence.endswith(
        "199 of the other 202 breakers opened within 5 minutes of it with the same error (1 more with other errors), "
        "so it looks like the provider, not this bot: wait for the provider."
    )


async def test_an_outage_that_hits_a_revoked_token_is_several_troubles(database_url, ask):
    errors = [NETWORK, NETWORK, REVOKED, REVOKED, REVOKED]
    await faults.seed(
        database_url,
        faults.well([USER, 900]),
        faults.outage(range(1_000, 1_020)),
        faults.calls(USER, THREE_AM, errors),
    )
    found = await ask()
    assert found.verdict is FleetVerdict.SEVERAL_TROUBLES
    assert found.sentence.endswith(
        "20 of the other 21 breakers opened within 5 minutes of it with NetworkError, which only its earlier failures "
        "have, so several troubles seem to have met: wait for the provider, and check this bot's token and settings."
    )


async def test_what_goes_on_at_all_times_is_not_taken_for_an_outage(database_url, ask):
    chronic = [
        trip
        for number in range(40)
        for trip in faults.calls(
            1_000 + number, THREE_AM - 64 * MINUTE + number * 100 * SECOND, [REVOKED] * 5
        )
    ]
    await faults.seed(database_url, faults.outage([USER], REVOKED), chronic)
    found = await ask()
    assert found.verdict is FleetVerdict.UNCLEAR
    assert found.around.same_error_before > 30
    assert "so that is not much more than usual" in found.sentence


async def test_a_trip_just_outside_the_window_is_no_company(database_url, ask):
    trip = THREE_AM + 12 * SECOND + 200_000
    near, far = trip - 5 * MINUTE, trip + 5 * MINUTE + 1
    await faults.seed(
        database_url,
        faults.outage([USER], SLOW),
        faults.calls(1, near - 3_200_000, [SLOW] * 5),
        faults.calls(2, far - 3_200_000, [SLOW] * 5),
    )
    assert (await ask()).around.by_error == [ErrorCount("TimeoutError", 1)]


async def test_of_a_window_that_is_too_full_only_what_is_near_is_looked_at(database_url, connection, ask):
    await faults.revoke_token(database_url)
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version) SELECT timestamptz '2025-11-26 03:00:12+00' - number * interval '1 ms',"
        " 10000 + number, 8, number, 100 + number, 1, 1, 1, 10,"
        """ '{"from": "closed", "causes": [{"error_type": "NetworkError"}]}', 1"""
        " FROM generate_series(1, 20010) AS number"
    )
    found = await ask()
    assert (found.around.is_lower_bound, found.around.since.isoformat()) == (
        True,
        "2025-11-26T02:59:52+00:00",
    )
    assert found.around.opened_count == 20_000
    assert (
        "breakers opened in the 5 min 20 s around it that were looked at with this error (at least 20,000 did"
        in (found.sentence)
    )


async def test_only_one_breaker_has_nobody_to_be_compared_with(database_url, ask):
    await faults.seed(database_url, faults.outage([USER], REVOKED))
    found = await ask()
    assert found.verdict is FleetVerdict.UNCLEAR
    assert (
        "there is no other breaker to compare it with, so whose trouble it is can't be told" in found.sentence
    )


async def test_failures_without_a_type_are_compared_with_nobodys(database_url, ask):
    await faults.seed(database_url, faults.outage([USER, 1, 2, 3, 4], (None, None)))
    found = await ask()
    assert found.verdict is FleetVerdict.UNCLEAR
    assert found.around.by_error == [ErrorCount(None, 4)]
    assert "5 failures in a row within 3.2 s, all without an error type; " in found.sentence


async def test_the_evidence_names_each_failure_and_the_last_success(database_url, ask):
    await faults.revoke_token(database_url)
    found = await ask()
    failures = found.event.failures
    assert [failure.at.isoformat() for failure in failures[::4]] == [
        "2025-11-26T03:00:09+00:00",
        "2025-11-26T03:00:12.200000+00:00",
    ]
    assert {(each.operation, each.duration_ms, each.error_type, each.error_message) for each in failures} == {
        ("sendMessage", 31.0, *REVOKED)
    }
    assert len({each.id for each in failures}) == 5
    assert found.opened_by == found.event
    assert found.last_success.at.isoformat() == "2025-11-20T03:00:00+00:00"
    assert found.well_for_seconds == 6 * 86_400 + 9
    assert found.policy["failure_threshold"] == 5
    assert found.since.may_try_at.isoformat() == "2025-11-26T03:01:12.200000+00:00"
    assert found.since.remaining_seconds == 0


async def test_calls_and_probes_since_are_counted(database_url, ask):
    probing = THREE_AM + 2 * MINUTE
    await faults.seed(
        database_url,
        faults.outage([USER], SLOW),
        faults.calls(USER, THREE_AM + 30 * SECOND, [SLOW, None, SLOW], step=SECOND),
        faults.calls(USER, probing, [None, SLOW], step=SECOND),
    )
    found = await ask()
    since = found.since
    assert (since.refused_calls, since.would_be_refused) == (0, 3)
    assert (since.probes_succeeded, since.probes_failed, since.reopened) == (1, 1, 1)
    assert not since.is_lower_bound
    assert (
        "; it has opened again once since, after failed probes, and lets the next call try" in found.sentence
    )


async def test_a_trip_that_has_lasted_for_weeks_is_counted(known, connection, ask):
    event_id = await add_transition(connection, Kind.OPENED, 1, position=1)
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind,"
        " details, details_version) SELECT occurred_at + number * interval '30 seconds', user_id, 9, number, number, number,"
        ' 1, number, CASE WHEN number % 2 = 0 THEN 11 ELSE 10 END, details || \'{"from": "half_open"}\', 1'
        " FROM breaker_transitions, generate_series(2, 30001) AS number"
    )
    await connection.execute("SELECT restore_breaker_state($1)", USER)
    found = await ask()
    assert found.event.id == str(event_id)
    assert (found.recurrence.trips, found.recurrence.since) == (1, None)
    assert (found.since.reopened, found.since.is_lower_bound) == (5_000, True)
    assert "; it has opened again at least 5,000 times since, " in found.sentence


async def test_the_reset_of_a_breaker_that_was_well_does_not_begin_its_being_well(known, connection, ask):
    chain = ((Kind.OPENED, "closed", "open"), (Kind.CLOSED, "half_open", "closed"), (Kind.RESET, "closed", "closed"),
             (Kind.OPENED, "closed", "open"))  # fmt: skip
    for version, (kind, before, after) in enumerate(chain, 1):
        await add_transition(
            connection, kind, version, position=version, **{"from": before, "to": after, "causes": CAUSES}
        )
    found = await ask()
    assert found.well_since.isoformat() == "2025-11-26T04:02:00+00:00"
    assert "; it had been well for 2 min, since its last recovery; " in found.sentence
    assert found.recurrence.trips == 2


async def test_of_a_history_with_very_many_trips_the_last_thousand_are_told(known, connection, ask):
    await add_transition(connection, Kind.OPENED, 1, position=1)
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind,"
        " details, details_version) SELECT occurred_at + number * interval '30 seconds', user_id, 9, number, number, number,"
        " 1, number, CASE WHEN number % 2 = 0 THEN 12 ELSE 10 END, details, 1"
        " FROM breaker_transitions, generate_series(2, 2401) AS number"
    )
    await connection.execute("SELECT restore_breaker_state($1)", USER)
    recurrence = (await ask()).recurrence
    assert (recurrence.trips, recurrence.recoveries) == (1_001, 1_000)
    assert recurrence.since.isoformat() == "2025-11-26T07:21:00+00:00"


async def test_a_success_that_was_not_searched_for_far_enough_is_not_said_to_be_missing(
    database_url, connection, ask
):
    await faults.revoke_token(database_url)
    assert not (await ask()).last_success_is_cut
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict)"
        " SELECT timestamptz '2025-11-26 03:00:09+00' - number * interval '1 ms', $1, 7, number, 1, 1, 2, 1"
        " FROM generate_series(1, 20001) AS number",
        USER,
    )
    found = await ask()
    assert (found.last_success, found.last_success_is_cut) == (None, True)


async def test_refused_calls_are_summed(database_url, connection, ask):
    await faults.seed(database_url, faults.outage([USER], SLOW))
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict, count)"
        " SELECT timestamptz '2025-11-26 03:00:13+00' + number * interval '1 second', $1, 7, number, 1, 1, 3, 0, 10"
        " FROM generate_series(1, 7) AS number",
        USER,
    )
    assert (await ask()).since.refused_calls == 70


async def test_what_opened_it_is_told_the_same_when_retention_has_dropped_the_outcomes(
    database_url, owner, ask
):
    await faults.revoke_token(database_url)
    [*days] = await owner.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits"
                                     " WHERE inhparent = 'breaker_outcomes'::regclass")  # fmt: skip
    for day in days:
        await owner.execute(f"ALTER TABLE breaker_outcomes DETACH PARTITION {day['name']}")
        await owner.execute(f"DROP TABLE {day['name']}")
    found = await ask()
    assert found.sentence == REVOKED_SENTENCE.replace(
        "it had been well for 6 days, since its first kept event",
        "nothing is kept from before these failures",
    )
    assert len(found.event.failures) == 5
    assert (found.last_success, found.well_for_seconds, found.outcomes_are_kept) == (None, None, False)
    assert found.since.is_lower_bound


async def test_a_reset_is_part_of_the_answer_and_is_explained_itself(database_url, connection, ask):
    await faults.revoke_token(database_url)
    await control.reset(database_url, USER, actor="alice", reason="token renewed")
    trip, reset = await ids(connection)
    found = await ask()
    assert (found.event.id, found.since.ended_by.id, found.state) == (str(trip), str(reset), "closed")
    assert "; it was reset by alice " in found.sentence
    assert found.sentence.endswith(": it is over; should it come back, check this bot's token and settings.")
    of_reset = await ask(USER, reset)
    assert of_reset.sentence.startswith("User 101's breaker was reset by alice at ")
    assert (
        f", at 2025-11-26 03:00:12 UTC (event {trip}) after 5 failures in a row within 3.2 s"
        in of_reset.sentence
    )
    assert (of_reset.event.kind, of_reset.opened_by.id) == ("reset", str(trip))


async def test_a_closed_breaker_is_explained_by_its_last_trip(database_url, connection, ask):
    trips = [
        faults.outage([USER], SLOW, at=THREE_AM - days * DAY) + faults.recovery([USER], THREE_AM - days * DAY + 5 * MINUTE)
        for days in range(6)
    ]  # fmt: skip
    await faults.seed(database_url, *trips)
    found = await ask()
    trip = (await ids(connection))[-3]
    assert found.event.id == str(trip)
    assert "; it had been well for 23 h 54 min, since its last recovery; " in found.sentence
    assert found.recurrence.trips == 6
    assert (found.recurrence.usual_hour_utc, found.recurrence.recoveries) == (3, 6)
    assert found.recurrence.mean_seconds_to_recover == 297.6
    assert (found.recurrence.trips_24_hours, found.recurrence.trips_7_days) == (0, 0)
    then = await ask(USER, trip)
    assert (then.recurrence.trips_24_hours, then.recurrence.trips_7_days) == (1, 6)
    assert "; it tripped 6 times in the 7 days up to then; " in then.sentence


async def test_each_transition_of_a_trip_is_explained_with_it(database_url, connection, ask):
    await faults.seed(
        database_url,
        faults.outage([USER], SLOW),
        faults.calls(USER, THREE_AM + 2 * MINUTE, [REVOKED]),
        faults.recovery([USER]),
    )
    chain = await ids(connection)
    found = [await ask(USER, event_id) for event_id in chain]
    assert [each.event.kind for each in found] == ["opened", "half_opened", "opened", "half_opened", "closed"]
    assert {each.opened_by.id for each in found} == {str(chain[0])}
    assert found[2].sentence.startswith(
        "User 101's breaker opened again at 2025-11-26 03:02:00 UTC because a probe failed with Unauthorized "
        '("401: the token was revoked"); it had opened 1 min 47 s before, at 2025-11-26 03:00:12 UTC '
        f"(event {chain[0]}) after 5 failures in a row within 3.2 s, all TimeoutError; "
    )
    assert (await ask()).event.id == str(chain[0])


async def test_a_breaker_that_is_half_open_is_explained_by_the_trip_in_force(database_url, connection, ask):
    await faults.seed(
        database_url, faults.outage([USER], SLOW), faults.calls(USER, THREE_AM + 2 * MINUTE, [None])
    )
    found = await ask()
    assert (found.state, found.event.id) == ("half_open", str((await ids(connection))[0]))
    assert "; it is half-open, with 1 of 2 probes succeeded; " in found.sentence
    assert found.since.may_try_at is None


async def add_transition(
    connection: asyncpg.Connection, kind: int, version: int, *, position: int | None = None, **details: object
) -> EventId:
    """Store a transition as a newer version would, an hour after three."""
    policy = {"failure_threshold": 5, "timeout_seconds": 60, "success_threshold": 2, "half_open_max_calls": 1}
    document = {
        "from": "closed", "to": "open", "follows": None, "reason": "abuse", "actor": "carol", "policy": policy,
        "policy_is_own": False, "failure_count": 0, "last_failure": None, "causes": [], "opened_at": None,
        "opened_by": None, "retry_at": None,
    } | details  # fmt: skip
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version) VALUES (timestamptz '2025-11-26 04:00:00+00' + $1::integer * interval"
        " '1 minute', $2, 9, $3::bigint, $4, $1, 1, $1, $5, $6, 1)",
        version,
        USER,
        version,
        position,
        kind,
        json.dumps(document),
    )
    if position is not None:
        await connection.execute("SELECT restore_breaker_state($1)", USER)
    return EventId(9, version)


@pytest.fixture
async def known(database_url: str) -> None:
    await faults.seed(database_url, faults.well([USER, 1]))


async def test_opened_by_hand_is_what_is_in_force(known, connection, ask):
    forced = await add_transition(connection, Kind.FORCED_OPEN, 1, position=1)
    found = await ask()
    assert (found.event.id, found.state, found.verdict, found.around) == (str(forced), "open", None, None)
    assert found.sentence == (
        'User 101\'s breaker was opened by hand by carol at 2025-11-26 04:01:00 UTC ("abuse"), not by failures; '
        "it stays open until somebody closes it."
    )


async def test_a_suspension_is_what_is_in_force_also_on_top_of_a_trip(database_url, connection, ask):
    await faults.seed(database_url, faults.outage([USER]))
    await control.suspend(database_url, USER, actor="alice", reason="unpaid bill")
    found = await ask()
    assert (found.event.kind, found.state, found.verdict) == ("suspended", "open", None)
    assert found.sentence.startswith("User 101's bot was suspended by alice ")
    assert found.sentence.endswith(' ("unpaid bill"); it refuses all calls until somebody resumes the bot.')
    await control.resume(database_url, USER, actor="bob", reason="paid")
    assert "it was resumed by bob" in (await ask()).sentence
    trip, *_ = await ids(connection)
    assert "; it was resumed by bob " in (await ask(USER, trip)).sentence


async def test_what_a_newer_version_wrote_is_shown_as_far_as_it_goes(known, connection, ask):
    event_id = await add_transition(connection, 42, 1, position=1)
    found = await ask(USER, event_id)
    assert found.sentence.startswith(
        "What happened to user 101's breaker at 2025-11-26 04:01:00 UTC can't be told: "
    )
    assert "kind 42" in found.sentence


async def test_what_was_superseded_is_explained_as_such(database_url, connection, ask):
    await faults.revoke_token(database_url)
    event_id = await add_transition(connection, Kind.RESET, 2, **{"from": "open", "to": "closed"})
    found = await ask(USER, event_id)
    assert found.sentence == (
        'User 101\'s breaker was reset by carol at 2025-11-26 04:02:00 UTC ("abuse"); this never took effect: '
        "another process had changed the breaker first, so it is kept as superseded."
    )
    assert (found.event.superseded, found.opened_by, found.verdict) == (True, None, None)
    assert (await ask()).sentence == REVOKED_SENTENCE


async def test_a_policy_of_its_own_is_told(known, connection, ask):
    policy = {"failure_threshold": 2, "timeout_seconds": 5, "success_threshold": 1, "half_open_max_calls": 1}
    event_id = await add_transition(
        connection, Kind.POLICY_CHANGED, 1, position=1, to="closed", policy=policy, policy_is_own=True
    )
    found = await ask(USER, event_id)
    assert found.sentence == (
        'User 101\'s breaker got another policy from carol at 2025-11-26 04:01:00 UTC ("abuse"): it opens after '
        "2 failures in a row, waits 5 s, and closes after 1 success; what came of it: well since."
    )
    assert (found.policy["failure_threshold"], found.policy_is_own, found.opened_by) == (2, True, None)
    latest = await ask()
    assert latest.sentence == "User 101's breaker is closed, and has never been open."
    assert (latest.event, latest.since, latest.policy_is_own) == (None, None, True)


async def test_a_known_user_without_a_trip_is_said_to_be_well(known, ask):
    found = await ask()
    assert found.sentence == "User 101's breaker is closed, and has never been open."
    assert (found.event, found.verdict, found.recurrence.trips) == (None, None, 0)


async def test_an_unknown_user_is_an_error(ask):
    with pytest.raises(UnknownBreakerError):
        await ask(404)


async def test_an_unknown_transition_and_another_users_is_an_error(database_url, connection, ask):
    await faults.seed(database_url, faults.outage([USER, 1], SLOW))
    [others] = await ids(connection, 1)
    with pytest.raises(UnknownTransitionError, match=f"no transition of user 101 has the id {others}"):
        await ask(USER, others)
    failure = EventId(others.writer_id, others.writer_seq - 1)
    with pytest.raises(UnknownTransitionError):
        await ask(1, failure)


async def test_hostile_texts_stay_on_their_line(database_url, ask):
    hostile = ("\x1b[2J<b>\u202e", "a\r\nb\u2028" + "x" * 5_000)
    await faults.seed(database_url, faults.outage([USER, 1], hostile))
    found = await ask()
    assert found.sentence.isprintable()
    assert len(found.sentence) < 1_000
    assert found.event.failures[0].error_type == hostile[0]


async def test_it_is_answered_within_a_transaction_that_has_begun(database_url, ask):
    await faults.revoke_token(database_url)
    engine = create_engine(database_url)
    connection: AsyncConnection
    async with reading(engine) as connection:
        await queries.summary(connection)
        within = await why(connection, USER)
    await engine.dispose()
    without = asdict(await ask())
    assert asdict(within) | {"recurrence": None} == without | {"recurrence": None}


async def test_an_old_decision_is_explained_by_the_rules_of_its_day(database_url, connection, ask):
    await faults.revoke_token(database_url)
    await control.set_policy(database_url, USER, {"failure_threshold": 99, "timeout_seconds": 1.0})
    found = await ask(USER, (await ids(connection))[0])
    assert "after 5 failures in a row" in found.sentence
    assert (found.policy["failure_threshold"], found.policy["timeout_seconds"]) == (5, 60.0)
