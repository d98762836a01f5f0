"""`meshctl` as scripts see it: exit codes, which stream, stable JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FULL = Path("/dev/full")

Meshctl = Callable[..., subprocess.CompletedProcess[str]]


def test_status_shows_the_mesh_and_exits_0(meshctl: Meshctl) -> None:
    """A table on stdout, nothing on stderr, no colour into a pipe."""
    done = meshctl("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "kitchen*" in done.stdout
    assert "2 of 2 nodes alive" in done.stdout
    assert "\x1b" not in done.stdout


def test_status_of_a_degraded_mesh_exits_5_and_says_why(
    meshctl: Meshctl, daemon: Any, degraded: dict[str, Any]
) -> None:
    """The table is printed all the same; the reasons are diagnostics."""
    daemon.bodies = degraded
    done = meshctl("status")
    assert done.returncode == 5
    assert "attic is dead: no answer to 4 probes" in done.stderr
    assert "shed is short of memory" in done.stderr
    assert "kitchen*" in done.stdout


@pytest.mark.parametrize("command", ["status", "peers", "models"])
def test_json_is_the_daemons_body_with_a_schema_version(
    meshctl: Meshctl, daemon: Any, command: str
) -> None:
    """Scripts get everything the daemon said, under the names it said it with."""
    done = meshctl(command, "--json")
    body = json.loads(done.stdout)
    path = daemon.asked[-1][0]
    assert body == {"schema_version": 1, **daemon.bodies[path]}
    assert done.returncode == 0


def test_explain_asks_about_the_first_model_when_none_is_named(
    meshctl: Meshctl, daemon: Any
) -> None:
    """And about the one named when one is; the prompt goes as a chat message."""
    assert meshctl("explain", "why?").returncode == 0
    assert daemon.asked[-1][2]["model"] == "SmolLM2-135M-Instruct"
    done = meshctl("explain", "why?", "--model", "gemma-3-27b", "--json")
    assert daemon.asked[-1][2] == {
        "model": "gemma-3-27b",
        "messages": [{"role": "user", "content": "why?"}],
    }
    assert json.loads(done.stdout)["chosen"] == "attic"


def test_explain_without_a_node_to_choose_exits_1(
    meshctl: Meshctl, daemon: Any, healthy: dict[str, Any]
) -> None:
    """A script can ask "could anybody answer this?"."""
    nobody = {"model": "x", "chosen": None, "reason": "nobody has it", "candidates": []}
    daemon.bodies = healthy | {"/mesh/v1/explain": nobody}
    done = meshctl("explain", "why?", "--model", "x")
    assert done.returncode == 1
    assert "no node can answer - nobody has it" in done.stdout


def test_no_daemon_is_exit_3_and_says_what_to_do(meshctl: Meshctl) -> None:
    """On every command that asks one."""
    for words in (["status"], ["peers"], ["models"], ["explain", "x"], ["status", "--watch"]):
        done = meshctl(*words, "--node", "http://127.0.0.1:9")
        assert (done.returncode, done.stdout) == (3, "")
        assert "no node answers at http://127.0.0.1:9" in done.stderr
        assert "meshd run" in done.stderr


def test_the_node_may_be_named_before_the_command(meshctl: Meshctl) -> None:
    """And the one behind it is the one that counts."""
    near, far = "http://127.0.0.1:9", "http://127.0.0.1:10"
    assert f"no node answers at {far}" in meshctl("--node", far, "status").stderr
    assert f"no node answers at {near}" in meshctl("--node", far, "peers", "--node", near).stderr


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full here")
def test_output_that_cannot_be_written_is_one_clear_line() -> None:
    """A full disk behind `meshctl status > file`."""
    with FULL.open("wb") as full:
        command = [sys.executable, "-m", "meshd.ctl", "version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("meshctl: stopped by the system: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (400, 1), (500, 1), (503, 1)])
def test_refusals_have_their_exit_codes(
    meshctl: Meshctl, daemon: Any, status: int, code: int
) -> None:
    """4 for the key, 1 for the rest, and the daemon's own words either way."""
    daemon.status, daemon.bodies = status, {}
    done = meshctl("peers")
    assert done.returncode == code
    assert "said the daemon" in done.stderr


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"members": 3}', b'{"members": [{}]}'])
def test_a_server_that_is_no_node_is_one_clear_line(
    meshctl: Meshctl, daemon: Any, body: bytes
) -> None:
    """Never a traceback, whatever sits on that port."""
    daemon.bodies = {"/mesh/v1/status": body}
    done = meshctl("status")
    assert done.returncode == 1
    assert done.stderr.startswith("meshctl: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "status"),
        (["stats"], "'stats'"),
        (["status", "--jsn"], "unknown flag --jsn (did you mean --json?)"),
        (["explain"], "PROMPT"),
        (["status", "--node", "nonsense"], "not the URL of a node"),
        (["status", "--node", "http://x:99999"], "not the URL of a node"),
        (["config", "check", "--http", "x"], "flag --http"),
    ],
)
def test_wrong_usage_is_exit_2(meshctl: Meshctl, words: list[str], said: str) -> None:
    """One line that names what was wrong; help when nothing was said."""
    done = meshctl(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_an_api_key_from_the_environment_is_shown_to_the_node(
    meshctl: Meshctl, daemon: Any
) -> None:
    """As OpenAI's clients show it; never on the command line, where `ps` would see it."""
    meshctl("peers", MESHCTL_API_KEY="k-1")
    assert daemon.asked[-1][1]["Authorization"] == "Bearer k-1"


def test_config_check_prints_every_value_and_its_origin(meshctl: Meshctl) -> None:
    """The effective settings, as the daemon would read them."""
    done = meshctl("config", "check", "--json", MESHD_NAME="attic")
    settings = json.loads(done.stdout)["settings"]
    assert settings["name"] == {"value": "attic", "origin": "environment MESHD_NAME"}
    assert settings["http"] == {"value": "127.0.0.1:8787", "origin": "default"}
    assert "environment MESHD_NAME" in meshctl("config", "check", MESHD_NAME="attic").stdout


def test_config_path_names_the_file_that_is_read(meshctl: Meshctl, tmp_path: Any) -> None:
    """Or the one that would be."""
    assert "config.toml (not there" in meshctl("config", "path", HOME=str(tmp_path)).stdout
    file = tmp_path / "mine.toml"
    file.write_text("")
    assert meshctl("config", "path", "--config", str(file)).stdout == f"{file}\n"


def test_version_needs_no_daemon(meshctl: Meshctl) -> None:
    """Text and JSON."""
    assert meshctl("version").stdout.startswith("meshctl 0.")
    assert json.loads(meshctl("version", "--json").stdout)["version"].startswith("0.")


def test_a_reader_that_has_enough_is_no_error(daemon: Any) -> None:
    """`meshctl status | head -1` ends quietly."""
    command = f"{sys.executable} -m meshd.ctl status --node {daemon.url} | head -0"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=15, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [("status",), ("revoke", "attic")])
def test_a_closed_stream_is_an_empty_one(daemon: Any, closing: str, words: tuple[str, ...]) -> None:
    """Started by a program that closed what it had no use for."""
    done = subprocess.run(
        [
            *("sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "meshd.ctl"),
            *(*words, "--node", daemon.url),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=15,
    )  # fmt: skip
    assert done.returncode == {"status": 0, "revoke": 2}[words[0]]
    assert "Traceback" not in done.stderr


def test_a_terminal_gets_no_control_characters_of_a_node(meshctl: Meshctl, daemon: Any) -> None:
    """Not in a complaint either; a second line stays one."""
    daemon.bodies = {"/mesh/v1/status": {"error": {"message": "a\x1b]0;b\x07c\nd"}}}
    daemon.status = 503
    assert "a?]0;b?c\nd\n" in meshctl("status").stderr


def test_a_letter_without_a_code_is_a_question_mark(meshctl: Meshctl, daemon: Any) -> None:
    """What a model writes goes to terminals and pipes of every kind."""
    daemon.bodies = {
        "/v1/chat/completions": b'data: {"choices": [{"delta": {"content": "a \\u2014 b"}}]}\n\n'
        b"data: [DONE]\n\n"
    }
    done = meshctl("run", "m", "hello", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "a ? b\n")
