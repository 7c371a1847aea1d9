"""What a bad answer is recorded as, when its client raises no error for it."""

from __future__ import annotations

import pytest

from breaker_store.core.failures import BadAnswer


@pytest.mark.parametrize(
    ("status", "description", "text"),
    [
        (403, None, "403 Forbidden"),
        (403, "", "403 Forbidden"),
        (403, "Forbidden: bot was blocked by the user", "403 Forbidden: bot was blocked by the user"),
        (401, "Unauthorized", "401 Unauthorized"),
        (404, "no such chat", "404 Not Found: no such chat"),
        (599, None, "599"),
        (599, "out of order", "599 out of order"),
    ],
)
def test_a_bad_answer_tells_its_status_and_what_its_body_says_once(
    status: int, description: str | None, text: str
) -> None:
    assert str(BadAnswer(b"", status, description=description)) == text
