"""The log of requests: what went wrong, by its id, and never in floods."""

from __future__ import annotations

import logging

import pytest

from meshd.history import History, Story
from meshd.journal import LINES_PER_S, Journal
from protocol.jobs import Failure, Finish, Job

DONE = Finish("stop", 5, 7)
LATE = Failure("timeout", "attic said nothing", elsewhere=True)


def ended(
    journal: Journal, last: Finish | Failure | None, tries: int = 1, at: float = 9.0
) -> Story:
    """One request that ended so."""
    story = History(journal.ended).opened(Job(request_id="req-7", kind="chat", model="m"), 1.0)
    for _ in range(tries):
        story.attempt_started("id", "attic", 1.0)
    story.finished(last, at)
    return story


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, from its smallest word."""
    caplog.set_level(logging.INFO)
    return caplog


def test_what_went_well_is_not_worth_a_line(said: pytest.LogCaptureFixture) -> None:
    """One node, one answer."""
    ended(Journal(), DONE)
    assert said.records == []


@pytest.mark.parametrize(
    ("last", "tries", "words"),
    [(LATE, 1, "failed (timeout)"), (None, 1, "cancelled"), (DONE, 2, "done")],
)
def test_a_failure_a_client_that_left_and_a_second_node_are(
    said: pytest.LogCaptureFixture, last: Finish | Failure | None, tries: int, words: str
) -> None:
    """With the id that the client was told, as text and as fields."""
    ended(Journal(), last, tries)
    (record,) = said.records
    assert "req-7" in record.getMessage()
    assert words in record.getMessage()
    assert record.request["request_id"] == "req-7"  # type: ignore[attr-defined]


def test_a_flood_is_a_few_lines_and_a_number(said: pytest.LogCaptureFixture) -> None:
    """The next second begins with how many were not said."""
    journal = Journal()
    for _ in range(LINES_PER_S + 30):
        ended(journal, LATE)
    assert len(said.records) == LINES_PER_S
    ended(journal, LATE, at=10.0)
    assert "and 30 more" in said.records[-2].getMessage()
