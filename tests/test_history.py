"""What is kept of requests, for how long, and that no prompt is among it."""

from __future__ import annotations

import gc
import json
from random import Random

import pytest

from meshd.core.routing.decision import Decision
from meshd.core.routing.demand import Demand, demand_of
from meshd.core.routing.router import Router
from meshd.history import (
    ATTEMPTS_MAX,
    CANDIDATES_MAX,
    DETAIL_MAX_CHARS,
    OPEN_MAX,
    STORIES_MAX,
    History,
)
from protocol.jobs import Failure, Finish
from tests.core.routing.fleet import MODEL, chat, load, member, view

DONE = Finish("stop", 12, 34)
SECRET = "the secret of the cellar"


def choice(nodes: int = 2) -> tuple[Demand, Decision]:
    """Of that many equal nodes."""
    demand = demand_of(chat(), MODEL)
    house = view(*(member(number) for number in range(1, nodes + 1)))
    return demand, Router(Random(1)).choose(house, demand, 0.0)


def nobody() -> tuple[Demand, Decision]:
    demand = demand_of(chat(), MODEL)
    house = view(member(1, load=load(draining=True, accepting=False)))
    return demand, Router(Random(1)).choose(house, demand, 0.0)


def test_a_request_is_told_from_its_arrival_to_its_end() -> None:
    """Ages and durations in seconds; the node of the last attempt."""
    history = History()
    story = history.opened(chat(request_id="r", person="a" * 16, stream=True), 10.0)
    story.decided(*choice())
    first = story.attempt_started("1" * 32, "kitchen", 10.1)
    first.ended("failed", 10.2, Failure("engine_failed", "it crashed", elsewhere=True))
    second = story.attempt_started("2" * 32, "attic", 10.2, "retry")
    second.first_byte(10.5)
    story.first_byte(10.5)
    second.ended("finished", 12.0)
    story.finished(DONE, 12.0)
    body = history.body("r", 20.0)
    assert body is not None
    assert body | {"decisions": [], "attempts": []} == {
        "id": "r",
        "state": "done",
        "kind": "chat",
        "model": MODEL,
        "person": "a" * 16,
        "priority": "interactive",
        "stream": True,
        "node": "attic",
        "node_id": "2" * 32,
        "queue_position": None,
        "queue_wait_s": None,
        "age_s": 10.0,
        "ttft_s": 0.5,
        "duration_s": 2.0,
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "error": None,
        "message": None,
        "attempts": [],
        "decisions": [],
    }
    assert body["attempts"][0] == {
        "node": "kitchen",
        "id": "1" * 32,
        "why": "first",
        "outcome": "failed",
        "started_s": 0.1,
        "first_byte_s": None,
        "ended_s": 0.2,
        "code": "engine_failed",
        "message": "it crashed",
    }
    assert [each["outcome"] for each in body["attempts"]] == ["failed", "finished"]
    assert body["decisions"][0]["chosen"] in {"node1", "node2"}
    assert body["decisions"][0]["candidates"][0]["terms"]["decode_s"] > 0


@pytest.mark.parametrize(
    ("last", "state"),
    [(DONE, "done"), (Failure("timeout", "late", elsewhere=True), "failed"), (None, "cancelled")],
)
def test_a_state_says_how_it_ended(last: Finish | Failure | None, state: str) -> None:
    """The first word holds: a stream that is closed after its end has not been left."""
    history = History()
    story = history.opened(chat(), 0.0)
    assert story.state == "running"
    story.finished(last, 1.0)
    story.finished(DONE, 2.0)
    assert story.state == state
    assert len(history) == 1


def test_a_request_that_waits_says_where() -> None:
    """Until its first word."""
    history = History()
    story = history.opened(chat(), 0.0)
    story.queued(3, 4.5)
    (row,) = history.recent_body(1.0)["requests"]
    assert (row["state"], row["queue_position"], row["queue_wait_s"]) == ("queued", 3, 4.5)
    story.first_byte(2.0)
    (row,) = history.recent_body(3.0)["requests"]
    assert (row["state"], row["queue_position"], row["queue_wait_s"]) == ("running", None, None)


def test_the_newest_come_first_and_the_running_before_them() -> None:
    """As many as are asked for."""
    history = History()
    stories = [history.opened(chat(request_id=f"r{number}"), float(number)) for number in range(5)]
    for story in stories[:3]:
        story.finished(DONE, 9.0)
    body = history.recent_body(10.0)
    assert [row["id"] for row in body["requests"]] == ["r4", "r3", "r2", "r1", "r0"]
    assert body["open"] == 2
    assert [row["id"] for row in history.recent_body(10.0, 1)["requests"]] == ["r4"]


def test_of_two_with_one_id_the_newest_is_told() -> None:
    """A client may use its id again."""
    history = History()
    history.opened(chat(request_id="r"), 0.0).finished(None, 1.0)
    history.opened(chat(request_id="r"), 5.0)
    body = history.body("r", 6.0)
    assert body is not None
    assert body["state"] == "running"
    assert history.body("unknown", 6.0) is None


def test_a_choice_of_nobody_keeps_everybody_and_why() -> None:
    """That is what the person wants to know."""
    history = History()
    story = history.opened(chat(request_id="r"), 0.0)
    story.decided(*nobody())
    story.finished(Failure("overloaded", "nobody", elsewhere=False), 0.0)
    body = history.body("r", 1.0)
    assert body is not None
    (decision,) = body["decisions"]
    assert decision["chosen"] is None
    shut = [gate["name"] for gate in decision["candidates"][0]["gates"] if not gate["ok"]]
    assert "accepting" in shut


def test_that_nobody_can_help_an_attempt_that_runs_is_no_choice() -> None:
    """A hedge that finds no second node is not worth a line; the end of all nodes is."""
    history = History()
    story = history.opened(chat(), 0.0)
    story.decided(*choice())
    attempt = story.attempt_started("1" * 32, "node1", 0.0)
    story.decided(*nobody())
    assert len(story.choices) == 1
    attempt.ended("failed", 1.0)
    story.decided(*nobody())
    assert len(story.choices) == 2


def test_a_second_choice_keeps_everybody_with_every_gate() -> None:
    """Retries are rare and worth explaining."""
    history = History()
    story = history.opened(chat(request_id="r"), 0.0)
    story.decided(*choice(9))
    story.decided(*choice(9))
    body = history.body("r", 1.0)
    assert body is not None
    first, second = body["decisions"]
    assert first["candidates"][0]["gates"] == []
    assert len(second["candidates"]) == 9
    assert all(candidate["gates"] for candidate in second["candidates"])


def test_what_is_kept_is_bounded() -> None:
    """Requests, attempts of one, candidates of all, and what nodes said."""
    history = History()
    demand, decision = choice(3)
    wordy = Failure("engine_failed", "x" * 2_000, elsewhere=True)
    for number in range(STORIES_MAX + 50):
        story = history.opened(chat(request_id=f"r{number}"), 0.0)
        for _ in range(ATTEMPTS_MAX + 5):
            story.decided(demand, decision)
            story.attempt_started("1" * 32, "n", 0.0).ended("failed", 0.0, wordy)
        story.finished(wordy, 0.0)
    assert len(history) == STORIES_MAX
    bodies = [history.body(f"r{number}", 0.0) or {} for number in range(50, STORIES_MAX + 50)]
    assert all(len(body["attempts"]) == ATTEMPTS_MAX for body in bodies)
    kept = [each for body in bodies for each in body["decisions"]]
    assert 0 < sum(len(each["candidates"]) for each in kept) <= CANDIDATES_MAX
    assert len(bodies[-1]["decisions"]) == ATTEMPTS_MAX
    assert bodies[0]["decisions"] == []
    assert len(bodies[0]["message"]) == DETAIL_MAX_CHARS


def test_more_open_requests_than_are_listed_do_no_harm() -> None:
    """The oldest is not listed while it runs, and is again when it has ended."""
    history = History()
    stories = [history.opened(chat(request_id=f"r{n}"), 0.0) for n in range(OPEN_MAX + 1)]
    assert history.body("r0", 0.0) is None
    stories[0].finished(DONE, 1.0)
    assert history.body("r0", 2.0) is not None


def test_no_prompt_is_kept() -> None:
    """Neither in a body nor in memory."""
    history = History()
    job = chat(SECRET, request_id="r")
    story = history.opened(job, 0.0)
    story.decided(*choice())
    story.finished(DONE, 1.0)
    assert SECRET not in json.dumps(history.body("r", 2.0))
    held = [story.history, *story.attempts, story.choices, *map(vars_of, story.choices)]
    assert not any(referent is job for each in held for referent in gc.get_referents(each))
    assert not any(referent is job for referent in gc.get_referents(story))


def vars_of(choice: tuple[Demand, Decision]) -> list[object]:
    """All that a kept choice refers to."""
    return [each for part in choice for each in gc.get_referents(part)]


def test_a_kept_choice_lets_go_of_the_mesh_of_its_moment() -> None:
    """A survey could ask the whole view, and would keep it alive."""
    history = History()
    demand, decision = choice()
    story = history.opened(chat(), 0.0)
    story.decided(demand, decision)
    ((_, kept),) = story.choices
    assert kept.chosen is decision.chosen
    assert kept.reason == decision.reason
    assert kept.survey() == ()
