"""`meshctl run` and `chat`: in a pipe, and in a pseudo-terminal with somebody at the keys."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from meshd.ctl.chat import Said

PRESS_EVERY_S = 0.3

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def said(*events: Any, comment: str = "") -> bytes:
    """A stream of server-sent events as a node writes it."""
    lines = [f": {comment}\n\n"] if comment else []
    lines += [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join(lines).encode()


def text(words: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": None}]}


def thought(words: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"reasoning_content": words}}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 42}}
DONE = b"data: [DONE]\n\n"
HELLO = said(text("Hel"), text("lo"), USAGE, comment="a: b x-mesh-node: attic x-mesh-model: t")
CHAT = "/v1/chat/completions"


def run(daemon: Any, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `meshctl` in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "meshd.ctl", *words, "--node", daemon.url],
        input=given,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.fixture
def talking(daemon: Any) -> Any:
    """The daemon, whose every answer is `Hello`."""
    daemon.bodies = {**daemon.bodies, CHAT: HELLO + DONE}
    return daemon


def test_an_answer_stands_alone_on_stdout(talking: Any) -> None:
    """So that it can be piped on."""
    done = run(talking, "run", "tiny", "Say", "hello", "--system", "Be brief.")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
    ((path, _, body),) = talking.asked
    assert (path, body["model"], body["stream"]) == (CHAT, "tiny", True)
    assert [turn["content"] for turn in body["messages"]] == ["Be brief.", "Say hello"]


def test_a_prompt_may_stand_behind_flags(talking: Any) -> None:
    """People put things in any order; a flag that is none is still an error."""
    run(talking, "run", "tiny", "--system", "Be brief.", "Say", "hello")
    run(talking, "run", "tiny", "Say", "--json", "hello")
    words = [body["messages"][-1]["content"] for _, _, body in talking.asked]
    assert words == ["Say hello", "Say hello"]
    assert run(talking, "run", "tiny", "Say", "--jsn").returncode == 2


def test_what_is_piped_in_goes_in_front_of_the_prompt(talking: Any) -> None:
    """`cat notes | meshctl run tiny Summarise`; or a prompt from a file alone."""
    run(talking, "run", "tiny", "Summarise", given="A note.\n")
    run(talking, "run", "tiny", given="Hi\n")
    words = [body["messages"][0]["content"] for _, _, body in talking.asked]
    assert words == ["A note.\n\nSummarise", "Hi"]


def test_thinking_and_control_characters_in_a_pipe(talking: Any) -> None:
    """The one is left out, the others are somebody else's business."""
    talking.bodies[CHAT] = said(thought("hm"), text("a\x1b[0m\n")) + DONE
    assert run(talking, "run", "tiny", "Hi").stdout == "a\x1b[0m\n"


def test_json_holds_the_answer_and_who_gave_it(talking: Any) -> None:
    """For programs."""
    body = json.loads(run(talking, "run", "tiny", "Hi", "--json").stdout)
    assert (body["text"], body["node"], body["completion_tokens"]) == ("Hello", "attic", 42)


def test_an_answer_may_be_held_to_a_length(talking: Any) -> None:
    """A small model can talk until its context is full, and a script has no Ctrl-C."""
    cut = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    talking.bodies[CHAT] = said(text("He"), cut, USAGE) + DONE
    body = json.loads(run(talking, "run", "tiny", "Hi", "--json", "--max-tokens", "42").stdout)
    assert (body["text"], body["finish_reason"]) == ("He", "length")
    run(talking, "run", "tiny", "Hi")
    assert [asked.get("max_tokens") for _, _, asked in talking.asked] == [42, None]
    assert Said("He", finish="length").account().endswith("cut at its longest")


@pytest.mark.parametrize("limit", ["0", "-5", "1.5", "many", ""])
def test_a_length_that_is_none_is_refused(talking: Any, limit: str) -> None:
    """Before anybody is asked."""
    done = run(talking, "run", "tiny", "Hi", f"--max-tokens={limit}")
    assert (done.returncode, talking.asked) == (2, [])
    assert "write 1 or more" in done.stderr


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(text("He"), {"error": {"message": "the node went away"}}), "the node went away"),
        (said({"error": "plain"}), "plain"),
        (said(text("He")), "broke off"),
        (b"data: {\n\n", "no part of an answer"),
        (b"data: 5\n\n", "no part of an answer"),
    ],
)
def test_an_answer_that_fails_is_one_line(talking: Any, answer: bytes, words: str) -> None:
    """In the node's own words where there are any."""
    talking.bodies[CHAT] = answer
    done = run(talking, "run", "tiny", "Hi")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_is_one_line(talking: Any) -> None:
    """With the status's exit code."""
    talking.bodies = {}
    talking.status = 404
    done = run(talking, "run", "nope", "Hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused (404): said the daemon" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [(["run", "tiny"], 2, "no prompt"), (["chat"], 2, "wants a terminal")],
)
def test_with_nothing_to_say_in_a_pipe(talking: Any, words: list[str], code: int, why: str) -> None:
    """Rather than waiting for somebody who is not there."""
    done = run(talking, *words)
    assert done.returncode == code
    assert why in done.stderr


class Terminal:
    """Somebody at the keys of a pseudo-terminal in which `meshctl` runs."""

    def __init__(self, *words: str) -> None:
        self._screen, terminal = pty.openpty()
        env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshd.ctl", *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=env | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"},
        )
        os.close(terminal)
        self._seen = ""

    def type(self, words: str) -> str:
        """A line and Enter, once there is a prompt; what was shown until then."""
        shown = self.until("> ")
        os.write(self._screen, words.encode() + b"\r")
        return shown

    def until(self, words: str) -> str:
        """What was shown since, up to and with `words`."""
        while words not in self._seen:
            piece = os.read(self._screen, 65_536).decode(errors="replace")
            self._seen = ESCAPES.sub("", self._seen + piece)
        shown, _, self._seen = self._seen.partition(words)
        return shown + words

    def press_ctrl_c_until(self, words: str) -> None:
        """Again and again, as people do: one that comes between the prompt and the wait for keys
        is only noticed with the next."""
        seen = threading.Event()

        def press() -> None:
            while not seen.wait(PRESS_EVERY_S):
                self.process.send_signal(signal.SIGINT)

        pressing = threading.Thread(target=press)
        pressing.start()
        try:
            self.until(words)
        finally:
            seen.set()
            pressing.join()

    def press_ctrl_d(self) -> None:
        """The end of what is typed, once there is a prompt."""
        self.until("> ")
        os.write(self._screen, b"\x04")

    def left(self) -> int:
        """The exit code, once it has left."""
        return self.process.wait(15)

    def close(self) -> None:
        """Ends it, whatever it does."""
        self.process.kill()
        self.process.wait(15)
        os.close(self._screen)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Opens terminals, and ends what still runs in them."""
    opened: list[Terminal] = []

    def open_terminal(*words: str) -> Terminal:
        opened.append(Terminal(*words))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def test_a_conversation_remembers_what_was_said(talking: Any, terminal: Open) -> None:
    """The node at the prompt, who answered below, and commands between."""
    screen = terminal("chat", "--node", talking.url)
    assert screen.type("Hi").endswith("SmolLM2-135M-Instruct by way of kitchen; /help says more."
                                      "\r\nkitchen> ")  # fmt: skip
    assert "Hello" in screen.type("/model other")
    assert "Now asking other." in screen.type("/system Be brief.")
    assert "Noted." in screen.type("Again")
    assert "attic · 42 tokens" in screen.type("/new")
    assert "Forgotten." in screen.type("Last")
    assert "first word after" in screen.type("/what")
    assert "is not known; /help" in screen.type("/help")
    assert "Ctrl-C  stop an answer" in screen.type("/bye")
    assert screen.left() == 0
    asked = [body for path, _, body in talking.asked if path == CHAT]
    assert [body["model"] for body in asked] == ["SmolLM2-135M-Instruct", "other", "other"]
    assert [[turn["content"] for turn in body["messages"]] for body in asked] == [
        ["Hi"],
        ["Be brief.", "Hi", "Hello", "Again"],
        ["Be brief.", "Last"],
    ]


def test_a_conversation_survives_an_answer_that_fails(talking: Any, terminal: Open) -> None:
    """The question is taken back; Ctrl-D leaves."""
    talking.bodies[CHAT] = [said({"error": {"message": "no room"}}), HELLO + DONE]
    screen = terminal("run", "tiny", "--node", talking.url)
    screen.type("Hi")
    assert "meshctl: no room" in screen.type("Again")
    screen.press_ctrl_d()
    assert screen.left() == 0
    assert [turn["content"] for turn in talking.asked[-1][2]["messages"]] == ["Again"]


def test_a_terminal_gets_no_control_characters_of_a_model(talking: Any, terminal: Open) -> None:
    """They could move the cursor, or rename the window; thinking is shown apart."""
    talking.bodies[CHAT] = said(thought("hm"), text("a\x1b]0;x\x07b")) + DONE
    screen = terminal("run", "tiny", "--node", talking.url)
    screen.type("Hi")
    assert "hm\r\n\r\na?]0;x?b" in screen.type("/bye")
    assert screen.left() == 0


Node = tuple[str, threading.Event]


class Slow(BaseHTTPRequestHandler):
    """Says one word, and then waits for its client to leave."""

    left: threading.Event

    def do_GET(self) -> None:
        body = json.dumps({"node": {"name": "desk"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("x-mesh-node", "attic%C3%A9")
        self.send_header("x-mesh-route-reason", "only one")
        self.end_headers()
        self.wfile.write(said(text("Once")))
        self.wfile.flush()
        self.connection.recv(1)
        self.left.set()

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def slow() -> Iterator[Node]:
    """A node whose answers never end: its URL, and what says that a client has left."""
    left = threading.Event()
    handler = type("Handler", (Slow,), {"left": left})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", left
    server.shutdown()
    thread.join()
    server.server_close()


def test_ctrl_c_stops_the_answer_and_nothing_else(slow: Node, terminal: Open) -> None:
    """The node is left at once, what was said stays, and the next line can be typed."""
    url, left = slow
    screen = terminal("run", "tiny", "--node", url)
    screen.type("Tell me a story")
    screen.until("Once")
    screen.process.send_signal(signal.SIGINT)
    assert left.wait(15)
    assert "atticé" in screen.type("/why")
    assert "atticé: only one" in screen.type("/bye")
    assert screen.left() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(slow: Node, terminal: Open) -> None:
    """It does not throw a conversation away."""
    screen = terminal("run", "tiny", "--node", slow[0])
    screen.until("> ")
    screen.press_ctrl_c_until("Ctrl-D or /bye leaves.")
    screen.type("/bye")
    assert screen.left() == 0


def test_ctrl_c_in_a_pipe_ends_with_its_own_code(slow: Node) -> None:
    """As shells number it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd.ctl", "run", "tiny", "Hi", "--node", slow[0]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(4) == b"Once"
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(15) == 130
