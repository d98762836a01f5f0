"""`meshctl pair`, `join`, `revoke`: questions, words, streams and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from meshd.ctl import trust
from meshd.ctl.app import main

Meshctl = Callable[..., subprocess.CompletedProcess[str]]

PAIR, JOIN, REVOKE = "/mesh/v1/pair", "/mesh/v1/join", "/mesh/v1/revoke"
MEMBERS = "/mesh/v1/members"
INVITED = {"code": "1234 5678", "expires_s": 120.0, "door": 8790}
OPEN = {"door": 8790, "invitations": [{"kind": "code", "expires_s": 120.0, "tries_left": 5}]}
CLOSED: dict[str, Any] = {"door": None, "invitations": []}
REVOKED = {"node": "attic", "told": ["desk"], "silent": [], "epoch": 3}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, and a newcomer is given up at once."""
    monkeypatch.setattr(trust, "LOOK_INTERVAL_S", 0.001)
    monkeypatch.setattr(trust, "ARRIVAL_WAIT_S", 0.01)


@pytest.fixture
def alone(healthy: dict[str, Any]) -> dict[str, Any]:
    """The members body of a mesh of one."""
    body: dict[str, Any] = healthy[MEMBERS]
    return body | {"members": body["members"][:1]}


def events(out: str) -> list[dict[str, Any]]:
    """The JSON lines on standard output, without their schema version."""
    found = [json.loads(line) for line in out.splitlines()]
    assert {event.pop("schema_version") for event in found} == {1}
    return found


def test_pair_shows_the_code_and_waits_for_who_comes(
    daemon: Any,
    alone: dict[str, Any],
    quick: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 0 once the window was used and the newcomer is a member."""
    both = daemon.bodies[MEMBERS]
    daemon.bodies |= {f"POST {PAIR}": INVITED, f"GET {PAIR}": [OPEN, OPEN, CLOSED]}
    daemon.bodies |= {MEMBERS: [alone, alone, alone, alone, both]}
    assert main(["pair", "--node", daemon.url]) == 0
    said = capsys.readouterr()
    assert "    1234 5678\n" in said.out
    assert "    meshctl join 1234 5678\n" in said.out
    assert said.out.endswith("attic is in the mesh\n")
    assert said.err.startswith("waiting for the other machine")
    assert [body for path, _, body in daemon.asked if body is not None] == [{"token": False}]


@pytest.mark.parametrize(
    ("expires_s", "why"), [(0.0, "has expired"), (120.0, "was closed: too many wrong codes")]
)
def test_a_window_that_nobody_used_is_exit_1(
    daemon: Any,
    quick: None,
    capsys: pytest.CaptureFixture[str],
    expires_s: float,
    why: str,
) -> None:
    """And why it closed, as far as can be told."""
    daemon.bodies |= {f"POST {PAIR}": INVITED | {"expires_s": expires_s}, f"GET {PAIR}": CLOSED}
    assert main(["pair", "--node", daemon.url]) == 1
    assert f"meshctl: nobody came; the window {why}" in capsys.readouterr().err


def test_pair_for_programs_is_a_line_for_each_event(
    daemon: Any,
    alone: dict[str, Any],
    quick: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The invitation first; then wrong tries and newcomers as they come; then the end."""
    fewer = {"door": 1, "invitations": [OPEN["invitations"][0] | {"tries_left": 4}]}
    both = daemon.bodies[MEMBERS]
    daemon.bodies |= {f"POST {PAIR}": INVITED, f"GET {PAIR}": [OPEN, fewer, CLOSED]}
    daemon.bodies |= {MEMBERS: [alone, alone, alone, both]}
    assert main(["pair", "--json", "--node", daemon.url]) == 0
    found = events(capsys.readouterr().out)
    assert found[:2] == [INVITED, {"wrong": {"tries_left": 4}}]
    assert found[2]["joined"]["name"] == "attic"
    assert found[3:] == [{"closed": "used"}]


def test_pair_without_waiting_is_one_body(meshctl: Meshctl, daemon: Any) -> None:
    """For a script that hands the token on."""
    token = {"token": "meshd-join-abc", "expires_s": 600.0, "door": 8790}
    daemon.bodies |= {f"POST {PAIR}": token}
    done = meshctl("pair", "--token", "--no-wait", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert events(done.stdout) == [token]
    assert daemon.asked[-1][2] == {"token": True}


def test_a_window_can_be_taken_back(meshctl: Meshctl, daemon: Any) -> None:
    """Nothing else is asked."""
    daemon.bodies |= {f"DELETE {PAIR}": CLOSED}
    done = meshctl("pair", "--cancel")
    assert (done.returncode, done.stdout) == (0, "no pairing window is open any more\n")
    assert [path for path, _, _ in daemon.asked] == [PAIR]


def test_stopping_to_wait_says_that_the_window_stays_open(daemon: Any) -> None:
    """Ctrl-C: exit 130, no traceback, and how to close it."""
    daemon.bodies |= {f"POST {PAIR}": INVITED, f"GET {PAIR}": OPEN}
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd.ctl", "pair", "--node", daemon.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=15)
    assert process.returncode == 130
    assert first.startswith("waiting")
    assert rest.startswith("not waiting any more; open for 2 min")
    assert "meshctl pair --cancel" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (["1234", "5678"], {"code": "1234 5678", "at": None}),
        (["1234 5678"], {"code": "1234 5678", "at": None}),
        (["12345678", "--at", "attic:8790"], {"code": "12345678", "at": "attic:8790"}),
        (["--at", "attic", "meshd-join-abc"], {"code": "meshd-join-abc", "at": "attic"}),
    ],
)
def test_join_takes_the_code_as_it_is_read_aloud(
    meshctl: Meshctl, daemon: Any, words: list[str], question: dict[str, Any]
) -> None:
    """In one word or two, quoted or not, before or after the place."""
    daemon.bodies |= {JOIN: {"mesh": "0f0f0f0f", "sponsors": ["attic"]}}
    assert meshctl("join", *words).returncode == 0
    assert daemon.asked[0][2] == question


def test_join_says_who_is_in_the_mesh(meshctl: Meshctl, daemon: Any) -> None:
    """Progress on stderr, the result on stdout, or one body."""
    daemon.bodies |= {JOIN: {"mesh": "0f0f0f0f", "sponsors": ["attic"]}}
    done = meshctl("join", "12345678", "--at", "attic:8790")
    assert done.stderr.startswith("asking to be let in at attic:8790")
    assert done.stdout.startswith("this node is in mesh 0f0f0f0f; let in by attic\n\nNODE")
    assert "attic  alive" in done.stdout
    body = json.loads(meshctl("join", "12345678", "--json").stdout)
    assert (body["mesh"], body["sponsors"], len(body["members"])) == ("0f0f0f0f", ["attic"], 2)


def test_a_join_that_nobody_answers_yet_is_a_join(
    daemon: Any,
    alone: dict[str, Any],
    quick: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 0, because the key was received; the doubt goes to stderr."""
    daemon.bodies |= {JOIN: {"mesh": "0f0f0f0f", "sponsors": []}, MEMBERS: alone}
    assert main(["join", "12345678", "--node", daemon.url]) == 0
    said = capsys.readouterr()
    assert said.out == "this node is in mesh 0f0f0f0f; let in by a member\n"
    assert "no other node has answered yet" in said.err


@pytest.mark.parametrize(
    "words", [["pair", "--no-wait"], ["pair", "--cancel"], ["join", "1"], ["revoke", "x", "--yes"]]
)
def test_a_refusal_is_exit_1_in_the_nodes_own_words(
    meshctl: Meshctl, daemon: Any, words: list[str]
) -> None:
    """409: it says what to do itself."""
    refusal = {"error": {"message": "the window is closed; ask for another code"}}
    daemon.bodies, daemon.status = {PAIR: refusal, JOIN: refusal, REVOKE: refusal}, 409
    done = meshctl(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(("another code\n", "said the daemon\n"))


def test_who_is_not_the_owner_is_exit_4(meshctl: Meshctl, daemon: Any) -> None:
    """403 is no matter of a better key, and does not say so."""
    daemon.status = 403
    daemon.bodies = {JOIN: {"error": {"message": "Run meshctl on this machine itself."}}}
    done = meshctl("join", "12345678")
    assert done.returncode == 4
    assert "does not let you: Run meshctl on this machine itself." in done.stderr


def test_revoke_says_who_was_told_and_who_was_silent(meshctl: Meshctl, daemon: Any) -> None:
    """Those learn of it later."""
    daemon.bodies |= {REVOKE: REVOKED | {"silent": ["shed"]}}
    done = meshctl("revoke", "attic", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "attic is out of the mesh; the mesh key has been changed (epoch 3)",
        "told: desk",
        "silent: shed (told as soon as they meet another member)",
    ]
    assert daemon.asked[-1][2] == {"node": "attic"}
    body = json.loads(meshctl("revoke", "attic", "--yes", "--json").stdout)
    assert body == {"schema_version": 1} | REVOKED | {"silent": ["shed"]}


def test_revoke_without_a_terminal_must_be_told_yes(daemon: Any) -> None:
    """A script that forgot it changes nothing."""
    daemon.bodies |= {REVOKE: REVOKED}
    done = subprocess.run(
        [sys.executable, "-m", "meshd.ctl", "revoke", "attic", "--node", daemon.url],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, "add --yes" in done.stderr) == (2, True)
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("answer", "code", "asked"),
    [("y", 0, [MEMBERS, REVOKE]), ("YES", 0, [MEMBERS, REVOKE]), ("", 1, [MEMBERS])],
)
def test_revoke_asks_a_person_and_names_the_node(
    daemon: Any, answer: str, code: int, asked: list[str]
) -> None:
    """Enter alone means no."""
    daemon.bodies |= {REVOKE: REVOKED}
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd.ctl", "revoke", "attic", "--node", daemon.url],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(terminal)
    os.write(screen, f"{answer}\n".encode())
    out, err = process.communicate(timeout=15)
    with contextlib.suppress(OSError):
        os.close(screen)
    assert process.returncode == code
    assert "alive at 192.168.1.20:8788) out of the mesh" in err
    assert ("attic is out" in out) is (code == 0)
    assert [path for path, _, _ in daemon.asked] == asked


def test_a_name_of_two_nodes_is_no_name(healthy: dict[str, Any]) -> None:
    """Which one is meant is said by id."""
    rows = [row | {"name": "twin"} for row in healthy[MEMBERS]["members"]]
    with pytest.raises(trust.Trouble, match=r"name one by id: 6b69.*, 6174"):
        trust._described("twin", rows)
    assert trust._described("ghost", []) == "ghost (no node that is known here now)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["join"], "CODE"),
        (["revoke"], "NODE"),
        (["pair", "--token", "--cancel"], "not allowed with"),
        (["pair", "--tokn"], "did you mean --token?"),
    ],
)
def test_wrong_usage_asks_nobody(
    meshctl: Meshctl, daemon: Any, words: list[str], said: str
) -> None:
    """Exit 2 before anything is opened."""
    done = meshctl(*words)
    assert (done.returncode, said in done.stderr) == (2, True)
    assert daemon.asked == []


@pytest.mark.parametrize("words", [["pair", "--no-wait"], ["join", "1"], ["revoke", "x", "--yes"]])
def test_a_server_that_is_no_node_is_one_line(
    meshctl: Meshctl, daemon: Any, words: list[str]
) -> None:
    """Never a traceback."""
    daemon.bodies = {PAIR: {}, JOIN: {}, REVOKE: {}, MEMBERS: {}}
    done = meshctl(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("meshctl: the answer is not one of meshd")
    assert "Traceback" not in done.stderr
