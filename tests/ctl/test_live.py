"""`meshctl top`, `bench` and `completion`: frames, figures and words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from meshd.ctl import bench
from meshd.ctl.app import build_parser, main
from meshd.ctl.chat import Said
from meshd.ctl.client import Node
from meshd.ctl.exits import FAILURE, OK, Trouble
from meshd.ctl.screen import Screen
from meshd.ctl.top import LEVELS, SPARK_CELLS, View, frame, sparkline

REQUEST = {
    "id": "req-1", "state": "done", "model": "m", "node": "attic", "age_s": 3.0, "ttft_s": 0.2,
    "attempts": 1, "queue_position": None,
}  # fmt: skip
RUNNING = REQUEST | {"id": "req-2", "state": "running", "ttft_s": None}
TRENDS = {"tokens_per_s": [0.0, 10.0, 5.0], "ttft_p50_s": [None, 0.2, None]}


def drawn(daemon: Any, height: int = 40, view: View | None = None) -> list[str]:
    """One frame on a wide, plain screen."""
    status = daemon.bodies["/mesh/v1/status"]
    body = json.loads(status) if isinstance(status, bytes) else status
    requests = {"requests": [REQUEST, RUNNING]}
    screen = Screen(width=120)
    return frame(body, requests, TRENDS, view=view or View(), screen=screen, height=height)


def test_a_frame_holds_nodes_sparks_and_requests(daemon: Any) -> None:
    """What runs stands before what has ended."""
    text = "\n".join(drawn(daemon))
    assert "tokens/s" in text
    assert text.index("req-2") < text.index("req-1")
    assert "q leave" in text


@pytest.mark.parametrize("height", [1, 5, 12, 60])
def test_a_frame_is_never_higher_than_the_terminal(daemon: Any, height: int) -> None:
    """A line too many would scroll the head away."""
    assert len(drawn(daemon, height)) <= max(1, height - 1)


def test_a_node_that_answers_no_more_is_said_where_the_keys_stand(daemon: Any) -> None:
    """Else the last picture of a node that is gone looks like a live one."""
    view = View()
    view.trouble = "no node answers at http://127.0.0.1:8787 " * 9
    foot = drawn(daemon, view=view)[-1]
    assert foot.startswith("no node answers")
    assert len(foot) == 120


def test_bodies_of_another_version_are_said_to_be_that(daemon: Any) -> None:
    """In one line, and the terminal is given back."""
    daemon.bodies = {"/mesh/v1/status": {"members": [{}]}}
    with pytest.raises(Trouble, match="not one of meshd"):
        drawn(daemon)


def test_keys_choose_what_is_seen() -> None:
    """w, m, n; q and Ctrl-C leave, and so does a terminal that is gone."""
    view = View()
    assert view.press("w")
    assert view.wide
    assert view.press("m")
    assert view.order == "memory"
    assert [view.press(key) for key in ("x", "q", "\x03", "")] == [True, False, False, False]


def test_a_sparkline_shows_the_last_samples_to_scale() -> None:
    """The highest is full, gaps are blank, a flat zero is a low line."""
    assert sparkline([1.0, None, 2.0], Screen()) == LEVELS[4] + " " + LEVELS[8]
    assert sparkline([0.0, 0.0], Screen()) == LEVELS[1] * 2
    assert len(sparkline([1.0] * 500, Screen())) == SPARK_CELLS
    assert sparkline([1.0], Screen(unicode=False)) == "%"


def test_a_narrow_terminal_keeps_the_figures_beside_the_sparklines(daemon: Any) -> None:
    """The figure of now is what is looked for; the line that leads to it can be shorter."""
    status = daemon.bodies["/mesh/v1/status"]
    trends = {"tokens_per_s": [12.5] * 60}
    screen = Screen(width=40)
    lines = frame(status, {"requests": []}, trends, view=View(), screen=screen, height=40)
    (line,) = (line for line in lines if "tokens/s" in line)
    assert line.endswith(f"{LEVELS[8]}  12.5")
    assert max(map(len, lines)) <= 40


def test_top_wants_a_terminal() -> None:
    """In a pipe it says what to use instead."""
    done = subprocess.run(
        [sys.executable, "-m", "meshd.ctl", "top"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=15,
    )  # fmt: skip
    assert done.returncode == FAILURE
    assert "status --watch" in done.stderr


def test_bench_takes_medians_and_counts_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three answers of one, two and four seconds after the first word, and one that failed."""
    answers = iter([
        Said("x", "attic", "", 11, 0.5, 1.5), Said("x", "attic", "", 11, 0.1, 2.1), None,
        Said("x", "cellar", "", 11, 0.3, 4.3),
    ])  # fmt: skip
    monkeypatch.setattr(bench, "_ask", lambda *_: next(answers))
    found = bench.measure(Node("http://x"), "m", 4, 1, emulated=False)
    assert found.nodes == ("attic", "cellar")
    assert found.first_word_s == pytest.approx(0.3)
    assert found.tokens_per_s == pytest.approx(5.0)
    assert found.failed == 1


def test_ctrl_c_stops_bench_and_not_only_its_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thinking model answers for minutes."""
    asked, answered, let_go = threading.Event(), threading.Event(), threading.Event()

    def ask(*_: object) -> None:
        asked.set()
        let_go.wait(5)
        answered.set()

    def stop() -> None:
        asked.wait(5)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(bench, "_ask", ask)
    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        bench.measure(Node("http://x"), "m", 1, 1, emulated=False)
    assert not answered.is_set()
    let_go.set()
    assert answered.wait(5)
    stopper.join()


def test_bench_with_nobody_to_answer_is_a_failure(
    daemon: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are empty, the exit code says it."""
    assert main(["bench", "--node", daemon.url, "--model", "none", "--json"]) == FAILURE
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert row["first_word_s"] is None
    assert row["failed"] == bench.REQUESTS


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Made from the parser itself."""
    assert main(["completion", shell]) == OK
    script = capsys.readouterr().out
    _, commands = build_parser()
    assert all(name in script for name in commands)
