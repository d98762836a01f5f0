"""`meshctl` in a real pseudo-terminal: colours, widths, watching."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def in_terminal(url: str, *words: str, columns: int = 80, **env: str) -> str:
    """Everything that `meshctl` wrote to a terminal of this width."""
    process, screen = start(url, *words, columns=columns, **env)
    text = drain(screen)
    assert process.wait(15) == 0
    return text


def start(url: str, *words: str, columns: int, **env: str) -> tuple[subprocess.Popen[bytes], int]:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    hidden = ("NO_COLOR", "COLUMNS", "LINES", "CLICOLOR_FORCE")
    clean = {key: value for key, value in os.environ.items() if key not in hidden}
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd.ctl", *words, "--node", url],
        stdout=terminal,
        stderr=terminal,
        stdin=subprocess.DEVNULL,
        env=clean | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | env,
    )
    os.close(terminal)
    return process, screen


def drain(screen: int) -> str:
    """Read until the other side has closed."""
    pieces = []
    with contextlib.suppress(OSError):
        while piece := os.read(screen, 65_536):
            pieces.append(piece)
    os.close(screen)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("words", [["status"], ["status", "--wide"], ["peers"], ["models"]])
def test_no_line_is_wider_than_the_terminal(daemon: Any, columns: int, words: list[str]) -> None:
    """Columns give way, words are cut, the foot is folded; nothing wraps."""
    lines = ESCAPES.sub("", in_terminal(daemon.url, *words, columns=columns)).splitlines()
    assert max(len(line) for line in lines) <= columns
    assert len(lines) >= 2


def test_wide_terminals_show_what_narrow_ones_cannot(daemon: Any) -> None:
    """80 columns keep the essentials, 200 have room for the reasons."""
    narrow = in_terminal(daemon.url, "status", "--wide", columns=80)
    wide = in_terminal(daemon.url, "status", "--wide", columns=200)
    assert "MEMORY FREE" in narrow
    assert "CHIP" not in narrow
    assert "Raspberry Pi 5" in wide
    assert "RTX 4090 24 GB" in wide


def test_a_terminal_gets_colours_unless_it_asks_for_none(daemon: Any) -> None:
    """NO_COLOR with any value, or a dumb terminal."""
    assert "\x1b[32malive" in in_terminal(daemon.url, "status")
    assert "\x1b" not in in_terminal(daemon.url, "status", NO_COLOR="1")
    assert "\x1b" not in in_terminal(daemon.url, "status", TERM="dumb")


def test_an_ascii_terminal_gets_ascii(daemon: Any) -> None:
    """A serial console shows no boxes and does not end the command."""
    text = in_terminal(daemon.url, "status", PYTHONIOENCODING="ascii")
    assert text.isascii()
    assert "##" in text


def test_watch_repaints_until_interrupted(daemon: Any) -> None:
    """Ctrl-C is the way out, with the exit code that shells expect and no traceback."""
    process, screen = start(daemon.url, "status", "--watch", columns=80)
    shown = ""
    while shown.count("\x1b[2J") < 2:
        shown += os.read(screen, 65_536).decode()
    process.send_signal(signal.SIGINT)
    shown += drain(screen)
    assert process.wait(15) == 130
    assert "Traceback" not in shown
    assert shown.count("kitchen*") >= 2


def test_watch_says_that_the_node_answers_no_more(daemon: Any) -> None:
    """Below what was seen last, where the next look does not wipe it away at once."""
    process, screen = start(daemon.url, "status", "--watch", columns=80)
    shown = os.read(screen, 65_536).decode()
    daemon.status = 500
    while shown.count("refused (500)") < 2:
        shown += os.read(screen, 65_536).decode()
    process.send_signal(signal.SIGINT)
    shown += drain(screen)
    assert process.wait(15) == 130
    assert "refused (500)" in shown.rpartition("\x1b[2J")[2]


def test_watch_shows_no_control_characters_of_other_machines(daemon: Any) -> None:
    """Nor in what it says of a node that is lost: its name, and why."""
    body = daemon.bodies["/mesh/v1/status"]
    body["members"][1] |= {"name": "attic\x1b]0;owned\x07", "state": "dead", "reason": "\x1b[8m"}
    process, screen = start(daemon.url, "status", "--watch", columns=80)
    shown = ""
    while " is dead: " not in shown:
        shown += os.read(screen, 65_536).decode()
    process.send_signal(signal.SIGINT)
    shown += drain(screen)
    assert process.wait(15) == 130
    assert "\x1b]0;" not in shown
    assert "\x1b[8m" not in shown


def test_a_terminal_that_cannot_redraw_gets_no_top() -> None:
    """An editor's shell window, say; the line names what it can do instead."""
    screen, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "meshd.ctl", "top"],
        stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, text=True, check=False,
        env=os.environ | {"TERM": "dumb"}, timeout=15,
    )  # fmt: skip
    os.close(terminal)
    os.close(screen)
    assert done.returncode == 1
    assert "status --watch" in done.stderr


def top(daemon: Any, size: tuple[int, int]) -> tuple[subprocess.Popen[bytes], int, bytes]:
    """`meshctl top` at work, its terminal, and what it has drawn."""
    quiet = {"requests": [], "open": 0}
    daemon.bodies = {
        **daemon.bodies,
        "/mesh/v1/requests?limit=30": json.dumps(quiet).encode(),
        "/mesh/v1/trends": b"{}",
    }
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd.ctl", "top", "--node", daemon.url],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    os.close(terminal)
    text = b""
    while b"q leave" not in text:
        text += os.read(screen, 65_536)
    return process, screen, text


@pytest.mark.parametrize("size", [(24, 80), (0, 0)])
def test_top_fills_the_screen_and_gives_it_back(daemon: Any, size: tuple[int, int]) -> None:
    """`q` leaves; the other screen and the cursor are as they were. A serial line has no size."""
    process, screen, text = top(daemon, size)
    os.write(screen, b"q")
    text += drain(screen).encode()
    assert process.wait(15) == 0
    assert text.startswith(b"\x1b[?1049h")
    assert text.endswith(b"\x1b[?1049l")


def test_top_gives_the_screen_back_also_to_who_kills_it(daemon: Any) -> None:
    """Not without a cursor, on the other screen, with keys that are not echoed."""
    process, screen, _ = top(daemon, (24, 80))
    process.send_signal(signal.SIGTERM)
    assert drain(screen).endswith("\x1b[?25h\x1b[?1049l")
    assert process.wait(15) == 128 + signal.SIGTERM
