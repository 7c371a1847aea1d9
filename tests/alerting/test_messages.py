from __future__ import annotations

import json

import pytest

from breaker_store.alerting.configuration import Format
from breaker_store.alerting.messages import compose, compose_test
from breaker_store.core.alerting import AlertKind, Notice
from breaker_store.core.events import EventId

from .making import START, recovery, trip, webhook


def bodies(notices: list[Notice], chosen: Format = Format.EVENT, **options: object) -> list:
    return [json.loads(message.body) for message in compose(webhook(chosen, **options), notices)]


def test_an_event_has_exactly_the_documented_fields():
    [message] = compose(webhook(), [trip()])

    assert json.loads(message.body) == {
        "type": "breaker.tripped",
        "id": message.id,
        "timestamp": "2025-11-26T09:40:00.000000Z",
        "text": "The breaker of user 101 tripped: 5 failures in a row, the last: Unauthorized: revoked.",
        "error": "Unauthorized",
        "user_count": 1,
        "user_ids": [101],
        "transitions": [
            {
                "id": "7-202",
                "position": 101,
                "user_id": 101,
                "at": "2025-11-26T09:40:00.000000Z",
                "reason": "5 failures in a row",
                "actor": None,
                "cause": {
                    "id": "7-201",
                    "at": "2025-11-26T09:40:00.000000Z",
                    "error_type": "Unauthorized",
                    "error_message": "revoked",
                    "operation": "send",
                },
                "tripped_at": None,
                "tripped_by": None,
            }
        ],
    }


def test_a_recovery_names_the_trip_that_it_ends():
    [body] = bodies([recovery(trip())])

    assert (body["type"], body["error"]) == ("breaker.recovered", "Unauthorized")
    [transition] = body["transitions"]
    assert transition["cause"] is None
    assert (transition["tripped_at"], transition["tripped_by"]) == ("2025-11-26T09:40:00.000000Z", "7-202")


def test_a_trip_of_many_lists_a_hundred_and_says_how_many_they_are():
    [body] = bodies([trip(user_id) for user_id in range(1, 2_001)])

    assert body["user_count"] == 2_000
    assert body["user_ids"] == list(range(1, 101))
    assert [each["user_id"] for each in body["transitions"]] == body["user_ids"]


def test_the_largest_event_is_of_bounded_size():
    huge = "\U0001f600" * 2_000
    [message] = compose(webhook(), [trip(user_id, error="E", message=huge) for user_id in range(1, 2_001)])

    assert len(message.body) < 1_000_000


def test_the_same_transitions_give_the_same_bytes_under_the_same_id():
    notices = [trip(1), trip(2), recovery(trip(1))]

    assert list(compose(webhook(), notices)) == list(compose(webhook(), notices))


def test_other_events_at_the_same_positions_have_another_id():
    """A database that was restored numbers what happens next as it did what it has forgotten."""
    one, other = (Notice(AlertKind.SUSPENDED, 1, 5, EventId(writer_id, 1), START) for writer_id in (1, 2))

    [first], [second] = compose(webhook(), [one]), compose(webhook(), [other])
    assert first.id != second.id


def test_a_mark_names_a_message_and_all_before_it():
    """Here the last message is the same, and a user whom the first one holds now was to be told of after it."""
    by_hand = Notice(AlertKind.SUSPENDED, 2, 2, EventId(1, 2), START)
    notices = [trip(1), by_hand, recovery(trip(3)), trip(2)]
    without_by_hand = frozenset(AlertKind) - {AlertKind.SUSPENDED}

    before, after = list(compose(webhook(), notices)), list(compose(webhook(kinds=without_by_hand), notices))

    assert before[2].id == after[1].id
    assert not {message.mark for message in before} & {message.mark for message in after}


def test_a_webhook_gets_the_kinds_that_it_asks_for():
    [body] = bodies([trip(), recovery(trip())], kinds=frozenset({AlertKind.RECOVERED}))

    assert body["type"] == "breaker.recovered"


def test_a_chat_gets_the_sentence_and_nothing_else():
    [body] = bodies([trip()], Format.CHAT)

    assert list(body) == ["text"]


def test_alertmanager_gets_an_alert_for_each_user_that_does_not_end_by_itself_soon():
    [alerts] = bodies([trip(1), trip(2)], Format.ALERTMANAGER)

    assert [alert["labels"]["user_id"] for alert in alerts] == ["1", "2"]
    assert alerts[0] == {
        "labels": {
            "alertname": "BreakerTripped",
            "user_id": "1",
            "error": "Unauthorized",
            "severity": "warning",
        },
        "annotations": {
            "summary": "The breaker of user 1 tripped: 5 failures in a row, the last: Unauthorized: revoked."
        },
        "startsAt": "2025-11-26T09:40:00.000000Z",
        "endsAt": "2025-12-26T09:40:00.000000Z",
    }


def test_a_recovery_ends_the_alerts_of_all_that_it_ends_by_their_own_labels():
    by_hand = Notice(AlertKind.FORCED_OPEN, 101, 102, EventId(1, 9), START + 1)
    ending = Notice(AlertKind.RECOVERED, 101, 103, EventId(1, 10), START + 2, ended=(trip(), by_hand))

    [[tripped]], [[forced]] = bodies([trip()], Format.ALERTMANAGER), bodies([by_hand], Format.ALERTMANAGER)
    [alerts] = bodies([ending], Format.ALERTMANAGER)

    assert [alert["labels"] for alert in alerts] == [tripped["labels"], forced["labels"]]
    assert [alert["startsAt"] for alert in alerts] == [tripped["startsAt"], forced["startsAt"]]
    assert {alert["endsAt"] for alert in alerts} == {"2025-11-26T09:40:00.000002Z"}


def test_an_alert_does_not_end_before_it_begins_though_the_clock_of_the_recovery_is_behind():
    [[alert]] = bodies([recovery(trip(), after=-0.5)], Format.ALERTMANAGER)

    assert alert["endsAt"] == alert["startsAt"]


def test_a_recovery_from_nothing_that_is_known_ends_no_alert_and_is_no_message():
    unknown = Notice(AlertKind.RECOVERED, 101, 103, EventId(1, 10), START)

    assert bodies([unknown], Format.ALERTMANAGER) == []
    assert len(bodies([unknown])) == 1


def test_alertmanager_gets_all_of_very_many_in_several_posts():
    posts = bodies([trip(user_id) for user_id in range(1, 2_501)], Format.ALERTMANAGER)

    assert [len(alerts) for alerts in posts] == [1_000, 1_000, 500]


def test_a_trip_without_an_error_has_a_label_all_the_same():
    [[alert]] = bodies([trip(error=None)], Format.ALERTMANAGER)

    assert alert["labels"]["error"] == "none"


@pytest.mark.parametrize("chosen", list(Format))
def test_a_test_message_looks_like_the_others_and_says_what_it_is(chosen):
    body = json.loads(compose_test(webhook(chosen), START).body)
    [like] = bodies([trip()], chosen)

    assert "This is a test of the webhook team" in json.dumps(body)
    assert type(body) is type(like)
    assert set(body) == set(like) if isinstance(body, dict) else set(body[0]) == set(like[0])


def test_a_time_that_cannot_be_written_blocks_nothing():
    late = Notice(AlertKind.SUSPENDED, 1, 1, EventId(1, 1), 253_402_000_000 * 1_000_000)

    [[alert]] = bodies([late], Format.ALERTMANAGER)

    assert alert["endsAt"].startswith("9892-")
