"""What each command says of a mesh. Bodies come from the code that publishes them."""

from __future__ import annotations

import copy
from typing import Any

from meshd.ctl.explain import explain_lines
from meshd.ctl.models import models_lines
from meshd.ctl.peers import peers_lines
from meshd.ctl.screen import Screen, measure
from meshd.ctl.status import status_lines, troubles

SCREEN = Screen()
URL = "http://127.0.0.1:8787"


def row(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(name))


def test_status_has_a_row_for_each_machine(degraded: dict[str, Any]) -> None:
    """State, round trip, warm models, slots, speed, memory with its pressure, age."""
    lines = status_lines(degraded["/mesh/v1/status"], SCREEN)
    assert lines[0] == "kitchen  meshd 0.1.0, up 90 s, mesh 0f0f0f0f"
    assert row(lines, "kitchen*").split() == [
        *("kitchen*", "alive", "-", "SmolLM2-135M-Instruct", "+1", "1/4", "0", "41.5"),
        *("██░░░░", "10", "GB", "now"),
    ]
    assert "0.4 ms" in row(lines, "shed")
    assert "██████ 0 B critical" in row(lines, "shed")
    assert row(lines, "attic").split()[1:] == [
        *("dead", "-", "SmolLM2-135M-Instruct", "+1", "-", "-", "-", "-", "800", "ms")
    ]


def test_a_long_or_wide_name_of_the_node_itself_is_cut(healthy: dict[str, Any]) -> None:
    """The head wraps on no terminal, else a full screen scrolls by one line."""
    body = healthy["/mesh/v1/status"]
    for name in ("n" * 63, "漢字" * 10, "漢" * 18):
        body["node"]["name"] = name
        assert measure(status_lines(body, Screen(40))[0]) <= 40
    assert status_lines(body, Screen(40))[0] == "漢" * 18 + "  m…"


def test_status_foot_adds_up_the_mesh(degraded: dict[str, Any]) -> None:
    """Only who is alive counts."""
    body = degraded["/mesh/v1/status"]
    first, second = "2 of 3 nodes alive · 2 models, 1 warm", "2 of 8 slots busy · 0 queued"
    third = "10 GB of 32 GB free"
    assert status_lines(body, SCREEN)[-1] == f"{first} · {second} · {third}"
    assert status_lines(body, Screen(40))[-3:] == [first, second, third]


def test_draining_and_refusing_nodes_say_so(healthy: dict[str, Any]) -> None:
    """Alive is not the same as taking work."""
    body = healthy["/mesh/v1/status"]
    body["members"][0]["load"]["accepting"] = False
    body["members"][1]["load"]["draining"] = True
    lines = status_lines(body, SCREEN)
    assert "refusing" in row(lines, "kitchen*")
    assert "draining" in row(lines, "attic")


def test_who_waits_for_memory_is_named(healthy: dict[str, Any]) -> None:
    """And for whose; a node of an older version says nothing of it."""
    body = healthy["/mesh/v1/status"]
    before = status_lines(body, SCREEN)
    wait = {"model": "b", "waiting": 2, "behind": ["a"], "wait_s": 35.0}
    lines = status_lines({**body, "memory_waits": [wait]}, SCREEN)
    words = "2 requests for b wait here for the memory of a, about 35 s"
    assert lines == [*before, words]


def test_a_healthy_mesh_has_no_troubles(healthy: dict[str, Any]) -> None:
    """A node that left on purpose is none either."""
    body = healthy["/mesh/v1/status"]
    assert troubles(body) == []
    body["members"][1]["state"] = "left"
    assert troubles(body) == []


def test_peers_are_the_others_and_why_they_are_so(degraded: dict[str, Any]) -> None:
    """The node asked is not its own peer."""
    lines = peers_lines(degraded["/mesh/v1/members"], SCREEN, url=URL, wide=True)
    assert len(lines) == 3
    assert "192.168.1.20:8788" in row(lines, "attic")
    assert "no answer to 4 probes" in row(lines, "attic")


def test_wide_peers_show_all_that_is_known_of_each(degraded: dict[str, Any]) -> None:
    """State, address in use, round trip, ages, last change and why; then how it is known."""
    lines = peers_lines(degraded["/mesh/v1/members"], SCREEN, url=URL, wide=True)
    assert lines[0].split() == [
        *("NODE", "STATE", "ADDRESS", "RTT", "HEARD", "CHANGED", "WHY", "AGE"),
        *("INCARNATION", "ENDPOINTS", "ID"),
    ]
    assert row(lines, "attic").split() == [
        *("attic", "dead", "192.168.1.20:8788", "0.4", "ms", "800", "ms", "60", "s"),
        *("no", "answer", "to", "4", "probes", "1", "s", "1700000000000"),
        *("192.168.1.20:8788", "61747469630000000000000000000000"),
    ]


def test_a_node_alone_is_told_how_to_find_others(healthy: dict[str, Any]) -> None:
    """Rather than an empty table."""
    body = healthy["/mesh/v1/members"]
    body["members"] = body["members"][:1]
    assert "is alone; `meshctl pair`" in peers_lines(body, SCREEN, url=URL)[0]


def test_models_say_who_has_them(healthy: dict[str, Any]) -> None:
    """And whether the first question must wait for a load."""
    lines = models_lines(healthy["/v1/models"], SCREEN)
    assert lines[1].split() == [
        *("SmolLM2-135M-Instruct", "warm", "kitchen,", "attic", "8192", "Q8_0", "chat")
    ]
    assert "--engine" in models_lines({"data": []}, SCREEN)[0]


def test_explain_shows_the_choice_its_terms_and_who_is_kept_out(healthy: dict[str, Any]) -> None:
    """Terms that are zero for all are left out; a shut gate is named with its reason."""
    lines = explain_lines(healthy["/mesh/v1/explain"], SCREEN)
    assert lines[0] == "SmolLM2-135M-Instruct: attic - expected in 1.20 s, next best 3.40 s"
    assert lines[2].split() == ["NODE", "EXPECTED", "SCORE", "RTT", "DECODE", "KEPT", "OUT", "BY"]
    assert row(lines, "attic*").split()[1:5] == ["800", "ms", "1.2", "s"]
    assert "pressure: critical" in row(lines, "shed")


def test_explain_marks_what_is_only_assumed(healthy: dict[str, Any]) -> None:
    """A node that has not measured the model is judged by its kind; older daemons do not say."""
    body = copy.deepcopy(healthy["/mesh/v1/explain"])
    assert "~" not in "".join(explain_lines(body, SCREEN))
    body["candidates"][0]["measured"] = False
    lines = explain_lines(body, SCREEN)
    assert "~800 ms" in row(lines, "attic*")
    del body["candidates"][0]["expected_s"]
    assert "~1.2 s" in row(explain_lines(body, SCREEN), "attic*")
    assert lines[-1].startswith("~ never measured there")
