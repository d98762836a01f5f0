"""The hour in rows: from stories that ended and a load record, bounded, oldest first."""

from __future__ import annotations

import pytest

from meshd.history import History
from meshd.trends import COLUMNS, SAMPLES_MAX, Trends
from protocol.jobs import Finish, Job
from protocol.load import LoadRecord


def load(**changed: object) -> LoadRecord:
    """A quiet machine with half its memory free."""
    base = {
        "sequence": 1, "in_flight": 0, "queued": 0, "memory_available_bytes": 50,
        "reserved_bytes": 0, "pressure": "normal", "accepting": True, "models": (),
    }  # fmt: skip
    return LoadRecord(**(base | changed))  # type: ignore[arg-type]


def answered(history: History, began: float, first_s: float, tokens: int) -> None:
    """A request that went well."""
    story = history.opened(Job(request_id=f"r{began}", kind="chat", model="m"), began)
    story.first_byte(began + first_s)
    story.finished(Finish("stop", 5, tokens), began + first_s + 1)


def test_a_row_tells_of_what_ended_since_the_last() -> None:
    """Each request is counted in one row."""
    history, trends = History(), Trends()
    trends.sample(history.ended_stories(), load(), 100, 0.0)
    answered(history, 1.0, 0.2, 30)
    answered(history, 2.0, 0.4, 70)
    trends.sample(history.ended_stories(), load(pressure="warn", queued=3), 100, 10.0)
    trends.sample(history.ended_stories(), load(), 100, 20.0)
    body = trends.body(20.0)
    assert body["age_s"] == [20.0, 10.0, 0.0]
    assert body["requests"] == [0.0, 2.0, 0.0]
    assert body["tokens_per_s"] == [0.0, 10.0, 0.0]
    assert body["ttft_p50_s"] == [None, pytest.approx(0.4), None]
    assert body["pressure"] == [0.0, 0.5, 0.0]
    assert body["queued"] == [0.0, 3.0, 0.0]
    assert body["memory_ratio"] == [0.5, 0.5, 0.5]


def test_the_words_of_a_long_answer_are_shared_out_over_its_time() -> None:
    """An answer of 20 tokens a second is shown as that, however long it took; none are lost, nor
    counted twice."""
    history, trends = History(), Trends()
    trends.sample((), load(), 100, 0.0)
    story = history.opened(Job(request_id="r", kind="chat", model="m"), 1.0)
    story.first_byte(5.0)
    trends.sample(history.ended_stories(), load(), 100, 10.0)
    trends.sample(history.ended_stories(), load(), 100, 20.0)
    story.finished(Finish("stop", 5, 440), 27.0)
    trends.sample(history.ended_stories(), load(), 100, 30.0)
    assert trends.body(30.0)["tokens_per_s"] == [0.0, 10.0, 20.0, 14.0]


def test_words_that_took_no_time_are_counted_too() -> None:
    """An engine may give an answer as a whole."""
    history, trends = History(), Trends()
    story = history.opened(Job(request_id="r", kind="chat", model="m"), 4.0)
    story.first_byte(5.0)
    story.finished(Finish("stop", 5, 40), 5.0)
    trends.sample(history.ended_stories(), load(), 100, 10.0)
    assert trends.body(10.0)["tokens_per_s"] == [2.0]


def test_an_hour_is_kept_and_no_more() -> None:
    """Every column is as long as the others."""
    trends = Trends()
    for step in range(SAMPLES_MAX + 10):
        trends.sample((), load(), 100, step * 10.0)
    body = trends.body(0.0)
    assert {len(body[name]) for name in COLUMNS} == {SAMPLES_MAX}
