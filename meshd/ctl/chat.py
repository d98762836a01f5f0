"""`meshctl run` and `meshctl chat`: asking a model from the terminal, and seeing who answers.

`run MODEL PROMPT` answers once, to stdout alone, so that it can stand in a pipe; what is piped in
goes in front of the prompt. Without a prompt, and for `chat`, it is a conversation: the prompt
shows the node that is asked, each answer the node that gave it. Ctrl-C ends an answer and nothing
else; what was said until then stays in the conversation.

What a model writes is not trusted with the terminal: control characters are replaced where a
terminal reads them, and passed on as they are into a pipe. Nothing is kept on disk, no history
either: prompts are nobody else's business.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from meshd.ctl import exits
from meshd.ctl.client import Node, Stream
from meshd.ctl.console import complain, node_of, progress, shaped, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Screen, clean, harmless, screen_of
from meshd.ctl.words import counted, rate_words, seconds_words

ANSWER_TIMEOUT_S = 600.0
"""Longest silence of a node: a cold model of 40 GB from a slow disk. Nodes say that they are still
there every few seconds, so a dead one is noticed by its closed connection, not by this."""

PROMPT_MAX_BYTES = 16 * 1024 * 1024
"""Read from a pipe: what one request may hold."""

HELP = """\
/model NAME   ask another model     /system TEXT  say how to answer (alone: forget it)
/new          forget what was said  /why          why that node answered
/help         this                  /bye, Ctrl-D  leave     Ctrl-C  stop an answer
"""


@dataclass
class Said:
    """One answer, as far as it has come."""

    text: str = ""
    node: str = ""
    reason: str = ""
    tokens: int = 0
    began_s: float = 0.0
    """From the question to the first word, in seconds."""
    took_s: float = 0.0
    """From the question to the last."""
    finish: str = ""
    """Why it ended, in OpenAI's word: `stop`, `length`."""

    def account(self) -> str:
        """One line: who, how much, how fast."""
        parts = [self.node] if self.node else []
        if self.tokens:
            parts.append(counted(self.tokens, "token"))
        spent_s = self.took_s - self.began_s
        if self.tokens > 1 and spent_s > 0:
            parts.append(f"{rate_words((self.tokens - 1) / spent_s)} tok/s")
        if self.text:
            parts.append(f"first word after {seconds_words(self.began_s)}")
        if self.finish == "length":
            parts.append("cut at its longest")
        return " · ".join(parts) or "no answer"


@dataclass
class Talk:
    """A conversation with one model over one node."""

    node: Node
    model: str
    system: str = ""
    max_tokens: int | None = None
    """Of one answer; None: as many as fit into the model's context."""
    turns: list[dict[str, str]] = field(default_factory=list)
    last: Said = field(default_factory=Said)

    def ask(self, words: str) -> Generator[tuple[str, str], None, None]:
        """The answer to `words`, in pieces: `thought` or `text`, and what was said. Closing it
        stops the answer. Raises Trouble. A question that got no word is taken back."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        question = {"role": "user", "content": words}
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, *self.turns, question],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.max_tokens:
            body["max_tokens"] = self.max_tokens
        self.last = said = Said()
        begun = time.monotonic()
        try:
            with closing(self.node.stream("/v1/chat/completions", body)) as stream:
                _credit(said, stream)
                for kind, piece in _pieces(stream, said):
                    said.began_s = said.began_s or time.monotonic() - begun
                    said.text += piece if kind == "text" else ""
                    yield kind, piece
        finally:
            said.took_s = time.monotonic() - begun
            if said.text:
                self.turns += [question, {"role": "assistant", "content": said.text}]


def run(args: Namespace) -> int:
    """One answer, or a conversation where no prompt is given and somebody is there to talk."""
    words = " ".join(args.prompt)
    if not sys.stdin.isatty():
        piped = sys.stdin.buffer.read(PROMPT_MAX_BYTES).decode(errors="replace").strip()
        words = "\n\n".join([part for part in (piped, words) if part])
        if not words:
            raise Trouble(exits.USAGE, "run: no prompt, neither as words nor piped in")
    node = node_of(args, ANSWER_TIMEOUT_S)
    talk = Talk(node, args.model, args.system or "", args.max_tokens)
    return _once(args, talk, words) if words else _converse(talk)


def chat(args: Namespace) -> int:
    """A conversation. USAGE where nobody is there to talk."""
    if not sys.stdin.isatty():
        raise Trouble(
            exits.USAGE, "chat wants a terminal; in a pipe use `meshctl run MODEL PROMPT`"
        )
    node = node_of(args, ANSWER_TIMEOUT_S)
    model = args.model or first_model(node)
    return _converse(Talk(node, model, args.system or "", args.max_tokens))


def first_model(node: Node) -> str:
    """A model that can chat, one in memory if there is any. Raises Trouble."""

    def pick(body: Any) -> list[str]:
        rows = [row for row in body["data"] if "chat" in row["capabilities"]]
        rows.sort(key=lambda row: row["status"]["value"] != "loaded")
        return [str(row["id"]) for row in rows]

    names = shaped(pick, node.get("/v1/models"))
    if not names:
        raise Trouble(exits.FAILURE, "no node of this mesh offers a model that can chat")
    return names[0]


def _once(args: Namespace, talk: Talk, words: str) -> int:
    screen = screen_of(sys.stdout, os.environ)
    if args.json:
        for _ in talk.ask(words):
            pass
        said = talk.last
        body = {"model": talk.model, "node": said.node, "reason": said.reason, "text": said.text,
                "finish_reason": said.finish, "completion_tokens": said.tokens,
                "first_word_s": said.began_s, "total_s": said.took_s}  # fmt: skip
        show(args, body, lambda body, _screen: [body["text"]])
        return exits.OK
    with closing(talk.ask(words)) as pieces:
        for kind, piece in pieces:
            if kind == "text":
                _say(piece, screen)
    sys.stdout.write("" if talk.last.text.endswith("\n") else "\n")
    if sys.stderr.isatty():
        progress(screen.paint(clean(talk.last.account(), screen), "dim"))
    return exits.OK


def _converse(talk: Talk) -> int:
    """Until its end is typed. An answer that fails is a line, and the conversation goes on."""
    with suppress(ImportError):
        import readline  # noqa: F401  # line editing in `input`, where the system has it
    screen = screen_of(sys.stdout, os.environ)
    name = shaped(lambda body: str(body["node"]["name"]), talk.node.get("/mesh/v1/status"))
    progress(f"{clean(talk.model, screen)} by way of {clean(name, screen)}; /help says more.")
    while True:
        try:
            words = input(f"{clean(name, screen)}> ").strip()
        except EOFError:
            sys.stdout.write("\n")
            return exits.OK
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            progress("Ctrl-D or /bye leaves.")
            continue
        if words in {"/bye", "/exit", "/quit"}:
            return exits.OK
        try:
            if words.startswith("/"):
                _command(talk, words, screen)
            elif words:
                _answer(talk, words, screen)
        except Trouble as trouble:
            complain(clean(str(trouble), screen))


def _answer(talk: Talk, words: str, screen: Screen) -> None:
    """Prints an answer as it comes. Ctrl-C stops it, and nothing else."""
    kind = ""
    with closing(talk.ask(words)) as pieces, suppress(KeyboardInterrupt):
        for kind_now, piece in pieces:
            if kind == "thought" and kind_now == "text":
                sys.stdout.write("\n\n")
            kind = kind_now
            _say(piece, screen, "dim" if kind == "thought" else "")
    sys.stdout.write("\n" + screen.paint(clean(talk.last.account(), screen), "dim") + "\n\n")
    sys.stdout.flush()


def _command(talk: Talk, words: str, screen: Screen) -> None:
    verb, _, rest = words.partition(" ")
    rest = rest.strip()
    if verb == "/new":
        talk.turns.clear()
        said = "Forgotten."
    elif verb == "/model" and rest:
        talk.model = rest
        said = f"Now asking {rest}."
    elif verb == "/system":
        talk.system = rest
        said = "Noted." if rest else "Forgotten."
    elif verb == "/why":
        said = (
            f"{talk.last.node}: {talk.last.reason}" if talk.last.reason else "Nobody answered yet."
        )
    elif verb == "/help":
        said = HELP.rstrip()
    else:
        said = f"{words} is not known; /help lists what is."
    sys.stdout.write("\n".join([clean(line, screen) for line in said.splitlines()]) + "\n")


def _say(piece: str, screen: Screen, style: str = "") -> None:
    """A piece of an answer. A terminal gets no control character of somebody else's."""
    if screen.width is not None:
        piece = harmless(piece)
    sys.stdout.write(screen.paint(piece, style))
    sys.stdout.flush()


def _credit(said: Said, stream: Stream) -> None:
    said.node = unquote(stream.header("x-mesh-node") or "")
    said.reason = unquote(stream.header("x-mesh-route-reason") or "")


def _pieces(stream: Stream, said: Said) -> Iterator[tuple[str, str]]:
    """What the events of an answer say; the account goes into `said`. Raises Trouble."""
    for line in stream.lines():
        if line.startswith(b": ") and b"x-mesh-node: " in line:
            node = line.partition(b"x-mesh-node: ")[2].partition(b" ")[0]
            said.node = unquote(node.decode(errors="replace"))
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]":
            return
        chunk = _decoded(line[6:])
        said.tokens = (chunk.get("usage") or {}).get("completion_tokens") or said.tokens
        for choice in chunk.get("choices") or ():
            said.finish = choice.get("finish_reason") or said.finish
            delta = choice.get("delta") or {}
            if delta.get("reasoning_content"):
                yield "thought", str(delta["reasoning_content"])
            if delta.get("content"):
                yield "text", str(delta["content"])
    raise Trouble(exits.FAILURE, "the answer broke off without an end; ask again")


def _decoded(payload: bytes) -> dict[str, Any]:
    """One event. Raises Trouble where it is an error, or none of ours."""
    try:
        chunk = json.loads(payload)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise Trouble(exits.FAILURE, "the node sent something that is no part of an answer")
    if chunk.get("error"):
        error = chunk["error"]
        said = error.get("message") if isinstance(error, dict) else error
        raise Trouble(exits.FAILURE, str(said))
    return chunk
