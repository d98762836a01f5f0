"""`meshctl drain` and `resume`: questions, patience, words and exit codes."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import pytest

from meshd.ctl import drain, exits
from meshd.ctl.exits import Trouble
from tests.ctl.conftest import Meshctl


def duty(running: int, waiting: int = 0, *, draining: bool = True) -> dict[str, Any]:
    return {"node": "kitchen", "draining": draining, "running": running, "waiting": waiting}


def test_a_drain_that_leaves_nothing_says_how_it_ends(meshctl: Meshctl, daemon: Any) -> None:
    """One question, one line."""
    daemon.bodies = {"POST /mesh/v1/drain": duty(0)}
    done = meshctl("drain")
    assert done.stdout == (
        "kitchen takes no work now, and nothing is left here; `meshctl resume` ends that, "
        "and so does a restart\n"
    )
    assert (done.returncode, [path for path, *_ in daemon.asked]) == (0, ["/mesh/v1/drain"])


def test_a_drain_looks_whether_the_work_has_gone(meshctl: Meshctl, daemon: Any) -> None:
    """Streams take a moment to go on elsewhere."""
    daemon.bodies = {
        "POST /mesh/v1/drain": duty(2, 1),
        "GET /mesh/v1/drain": [duty(1), duty(0)],
    }
    done = meshctl("drain", "--json")
    assert json.loads(done.stdout)["running"] == 0
    assert done.returncode == 0
    assert len(daemon.asked) == 3


def test_what_cannot_go_is_named(meshctl: Meshctl, daemon: Any) -> None:
    """After a moment, and it is no failure."""
    daemon.bodies = {"/mesh/v1/drain": duty(1)}
    done = meshctl("drain")
    assert "1 request that no other node can carry on with will be finished here" in done.stdout
    assert done.returncode == 0


def test_waiting_lasts_until_nothing_is_left(meshctl: Meshctl, daemon: Any) -> None:
    """With a word on standard error in the meantime."""
    daemon.bodies = {
        "POST /mesh/v1/drain": duty(1),
        "GET /mesh/v1/drain": [*[duty(1)] * 20, duty(0)],
    }
    done = meshctl("drain", "--wait")
    assert "waiting for 1 request to end" in done.stderr
    assert "nothing is left" in done.stdout
    assert len(daemon.asked) == 22


def test_waiting_for_nothing_is_a_failure(
    daemon: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1: scripts must not go on to switch the machine off."""
    monkeypatch.setattr(drain, "WAIT_MAX_S", 0.0)
    daemon.bodies = {"/mesh/v1/drain": duty(1)}
    with pytest.raises(Trouble, match="1 request did not end") as trouble:
        drain.drain(Namespace(node=daemon.url, json=False, wait=True))
    assert trouble.value.code == exits.FAILURE
    assert "kitchen takes no work now" in capsys.readouterr().out


def test_a_node_that_resumes_says_so(meshctl: Meshctl, daemon: Any) -> None:
    """One line."""
    daemon.bodies = {"POST /mesh/v1/resume": duty(0, draining=False)}
    assert meshctl("resume").stdout == "kitchen takes work again\n"


def test_draining_is_for_the_owner(meshctl: Meshctl, daemon: Any) -> None:
    """Exit 4, with the node's own words."""
    daemon.bodies = {"/mesh/v1/drain": {"error": {"message": "not for other machines"}}}
    daemon.status = 403
    done = meshctl("drain")
    assert done.returncode == 4
    assert "not for other machines" in done.stderr
