"""`meshctl requests`: tables of bodies that come from the code that publishes them."""

from __future__ import annotations

import json
from typing import Any

from meshd.ctl.requests import request_lines, requests_lines
from meshd.ctl.screen import Screen
from meshd.history import History
from protocol.jobs import Failure, Finish
from tests.core.routing.fleet import MODEL, chat
from tests.ctl.conftest import Meshctl
from tests.test_history import choice, nobody

SCREEN = Screen()
NOW = 100.0


def told() -> History:
    """One that is done after a retry, one that failed, one that waits."""
    history = History()
    done = history.opened(chat(request_id="done-1", person="ab" * 8), 80.0)
    done.decided(*choice())
    first = done.attempt_started("1" * 32, "node1", 80.0)
    first.ended("failed", 80.1, Failure("unreachable", "no answer", elsewhere=True))
    done.decided(*choice())
    second = done.attempt_started("2" * 32, "node2", 80.1, "retry")
    second.first_byte(81.0)
    done.first_byte(81.0)
    second.ended("finished", 90.0)
    done.finished(Finish("stop", 12, 34), 90.0)
    failed = history.opened(chat(request_id="failed-1"), 91.0)
    failed.decided(*nobody())
    failed.finished(Failure("overloaded", "nobody can", elsewhere=False), 91.0)
    waits = history.opened(chat(request_id="waits-1"), 98.0)
    waits.decided(*choice())
    waits.attempt_started("1" * 32, "node1", 98.0)
    waits.queued(2, 3.1)
    return history


def body(*served: str, draining: bool = False) -> dict[str, Any]:
    """Of `/mesh/v1/requests`, as `Duty.requests` makes it."""
    rows = [
        {
            "id": request_id,
            "state": "running",
            "model": MODEL,
            "person": "cd" * 8,
            "priority": "interactive",
            "queue_position": None,
            "queue_wait_s": None,
            "age_s": 1.0,
        }
        for request_id in served
    ]
    duty = {"node": "kitchen", "draining": draining, "running": 0, "waiting": 0}
    return {**duty, **told().recent_body(NOW), "served": rows}


def row(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(name))


def test_each_request_has_a_row_newest_first() -> None:
    """State, model, node, person, times, tokens and tries."""
    lines = requests_lines(body(), SCREEN)
    assert [line.split()[0] for line in lines] == ["REQUEST", "waits-1", "failed-1", "done-1"]
    assert row(lines, "done-1").split() == [
        *("done-1", "done", MODEL, "node2", "abababab", "20", "s", "1", "s", "10", "s"),
        *("12+34", "2"),
    ]
    assert "queued 2, about 3.1 s" in row(lines, "waits-1")
    assert "failed: overloaded" in row(lines, "failed-1")


def test_what_is_answered_for_others_has_a_table_of_its_own() -> None:
    """Own requests, and their further attempts, are not listed twice."""
    lines = requests_lines(body("other-1", "waits-1", "waits-1.2"), SCREEN)
    start = next(index for index, line in enumerate(lines) if line.startswith("ANSWERED HERE"))
    assert [line.split()[0] for line in lines[start + 1 :]] == ["other-1"]


def test_a_draining_node_says_so_above_its_table() -> None:
    """It may explain why rows are missing."""
    assert requests_lines(body(draining=True), SCREEN)[0] == "kitchen takes no work now"


def test_a_node_that_was_never_asked_says_so() -> None:
    """Rather than nothing."""
    empty = {**body(), "requests": [], "served": []}
    assert requests_lines(empty, SCREEN) == ["no request has entered kitchen since it started"]


def test_one_request_is_told_whole() -> None:
    """Its fate, its attempts with what nodes said, and every choice with its reasons."""
    found = told().body("done-1", NOW)
    assert found is not None
    lines = request_lines(found, SCREEN)
    assert lines[0] == (
        f"done-1: done · {MODEL} · interactive chat · 20 s ago · took 10 s · 12+34 tokens"
    )
    assert "unreachable: no answer" in row(lines, "  1  node1")
    assert "finished" in row(lines, "  2  node2")
    assert [line for line in lines if line.startswith("choice")] == [
        "choice 1 of 2",
        "choice 2 of 2",
    ]


def test_a_failure_is_told_in_the_words_that_the_client_read() -> None:
    """And who stood in the way."""
    found = told().body("failed-1", NOW)
    assert found is not None
    lines = request_lines(found, SCREEN)
    assert lines[1] == "nobody can"
    assert any("draining" in line for line in lines[2:])


def test_reasons_that_are_gone_are_said_to_be() -> None:
    """Bounded memory is no secret."""
    found = told().body("waits-1", NOW)
    assert found is not None
    assert "not kept any more" in request_lines({**found, "decisions": []}, SCREEN)[-1]


def test_the_node_is_asked_for_all_or_for_one(meshctl: Meshctl, daemon: Any) -> None:
    """An id is one part of the path, whatever is in it."""
    daemon.bodies = {
        "/mesh/v1/requests": body(),
        "/mesh/v1/requests/done-1%2F": told().body("done-1", NOW),
    }
    assert "done-1" in meshctl("requests").stdout
    assert json.loads(meshctl("requests", "--json").stdout)["schema_version"] == 1
    assert "choice 1 of 2" in meshctl("requests", "done-1/").stdout


def test_an_unknown_request_is_a_failure_with_the_nodes_words(
    meshctl: Meshctl, daemon: Any
) -> None:
    """Exit 1."""
    daemon.bodies = {"/mesh/v1/requests/x": {"error": {"message": "No request 'x' is known here."}}}
    daemon.status = 404
    done = meshctl("requests", "x")
    assert done.returncode == 1
    assert "No request 'x' is known here." in done.stderr
