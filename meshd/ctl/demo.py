"""`make demo`: three nodes on this machine, a question routed, nodes killed, every answer whole.

One node runs a real model, two run an emulated one; they find each other by typed addresses, so no
multicast is needed. The emulated nodes are slow to their first word, which leaves time to kill one
before it; later another is killed in the middle of its sentence, which the next one finishes.
Everything is real but the two emulated machines: processes, encryption, routing, kill -9. Every
wait has a limit, and whatever happens the nodes are stopped and their files removed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from meshd.ctl.client import Node
from meshd.ctl.exits import Trouble
from protocol.frozen import frozen

READY_S = 60.0
"""Longest wait for the mesh to be whole: the model loads in seconds, on a slow disk in ten."""

ANSWER_S = 60.0
"""Longest wait for one answer: 40 tokens of a small model on a slow processor."""

KILL_AFTER_PIECES = 8
"""When the speaking node is killed: in the middle of its sentence."""

KILL_AFTER_S = 0.7
"""When the working node is killed: after the question has reached it, before its first word."""

POLL_S = 0.1
LOG_TAIL_LINES = 15
REAL_MODEL_ENGINE = "llamacpp:bundled"
EMULATED_MODEL = "emulated-7b"
QUESTION = "Why is the sky blue? Answer in one sentence."


class DemoFailed(Exception):
    """The demonstration cannot go on; the text says what was waited for."""


@frozen
class Machine:
    """One node as its own process."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    flags: Mapping[str, str]


ALONE = ("--no-mdns", "--no-adopt", "--no-catalog")
"""The three nodes know each other, and use nothing else that is on this machine."""


@frozen
class Heard:
    """Who answered, and how."""

    node: str
    attempts: str
    reason: str
    notes: tuple[str, ...]
    """What the stream's comments told on the way."""


def main() -> int:
    """Tell the story. 0 when every part of it happened, 1 otherwise."""
    with tempfile.TemporaryDirectory(prefix="meshd-demo-") as folder, contextlib.ExitStack() as end:
        machines: list[Machine] = []
        end.callback(_stop, machines)
        try:
            _story(Path(folder), machines)
        except (DemoFailed, Trouble) as failure:
            say(f"\nThe demonstration stopped: {failure}")
            _show_logs(machines)
            return 1
        except KeyboardInterrupt:
            say("\nStopped.")
            return 1
    return 0


def _story(folder: Path, machines: list[Machine]) -> None:
    say(
        "Starting three nodes that share one key: kitchen (a real model), attic and shed (emulated)"
    )
    machines.extend(start_three(folder))
    kitchen, attic, shed = machines
    _until(lambda: _warm(kitchen) >= 3 and _warm(attic) >= 3, "all three nodes to know each other")
    say(f"  they know each other; each of them answers for all, for example at {kitchen.url}/v1\n")

    real = _model_of(kitchen, "kitchen")
    say(f"1. attic is asked for {real}, which only kitchen has:")
    heard = ask(attic, real, say_piece)
    say(f"\n   answered by {heard.node}: {heard.reason}\n")

    say(f"2. kitchen is asked for {EMULATED_MODEL}, which attic and shed have; attic is faster:")
    say(f"   and attic is killed (kill -9) {KILL_AFTER_S:g} s later, before its first word:")
    killer = threading.Timer(KILL_AFTER_S, attic.process.kill)
    killer.start()
    heard = ask(kitchen, EMULATED_MODEL, say_piece)
    killer.join()
    say(f"\n   answered by {heard.node} in attempt {heard.attempts}: {heard.reason}")
    if (heard.node, heard.attempts) != (shed.name, "2"):
        raise DemoFailed("the answer did not come from shed in a second attempt")
    _until(lambda: _state(kitchen, "attic") == "dead", "kitchen to call attic dead")
    say("   kitchen now lists attic as dead; the client saw one answer and no error\n")

    attic = machines[1] = _start(attic.name, attic.flags, attic.log)
    say("3. attic is started again, and kitchen is asked once more; whoever answers is killed")
    say("   (kill -9) in the middle of the sentence:")
    _until(lambda: _warm(kitchen) >= 3, "kitchen to know attic again")
    _kill_in_the_middle(kitchen, {machine.name: machine for machine in (attic, shed)})


def _kill_in_the_middle(entry: Machine, serving: Mapping[str, Machine]) -> None:
    """Kill the node that speaks; the other finishes its sentence. Raises DemoFailed."""
    said: list[str] = []

    def piece(text: str, node: str) -> None:
        say_piece(text)
        said.append(text)
        if len(said) == KILL_AFTER_PIECES:
            serving[node].process.kill()
            say_piece(" [kill -9]")

    heard = ask(entry, EMULATED_MODEL, piece, "Why is the grass green?")
    notes = ", ".join(note for note in heard.notes if "continued" in note)
    if not notes:
        raise DemoFailed("the answer was not continued by another node")
    say(f"\n   begun by {heard.node}, {notes}: one stream, no word lost and none doubled")


def start_three(folder: Path) -> Iterator[Machine]:
    """kitchen, attic and shed; the later ones are told where the first is."""
    key = folder / "mesh.key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    ports = _free_ports(3)
    engines = {
        "kitchen": REAL_MODEL_ENGINE,
        "attic": f"emulated:name=attic,model={EMULATED_MODEL},prompt_tps=8,generation_tps=40",
        "shed": f"emulated:name=shed,model={EMULATED_MODEL},prompt_tps=8,generation_tps=20",
    }
    for port, (name, engine) in zip(ports, engines.items(), strict=True):
        flags = {
            "--name": name,
            "--state-dir": str(folder / name),
            "--http": f"127.0.0.1:{port + 2}",
            "--mesh": f"127.0.0.1:{port}",
            "--mesh-key-file": str(key),
            "--engine": engine,
        }
        if port != ports[0]:
            flags["--peer"] = f"127.0.0.1:{ports[0]}"
        yield _start(name, flags, folder / f"{name}.log")


def _start(name: str, flags: Mapping[str, str], log: Path) -> Machine:
    words = [word for pair in flags.items() for word in pair]
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own daemon
            [sys.executable, "-m", "meshd", "run", *ALONE, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Machine(name, f"http://{flags['--http']}", process, log, flags)


def _free_ports(count: int) -> list[int]:
    """First ports of runs of three that are free now: mesh, relay and HTTP of a node."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            first = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                for offset in (1, 2):
                    held.enter_context(socket.create_server(("127.0.0.1", port + offset)))
                found.append(port)
    return found


def ask(
    machine: Machine, model: str, piece: Callable[[str, str], None], question: str = QUESTION
) -> Heard:
    """Ask as any OpenAI client would, streaming; `piece` gets each piece of text as it comes, and
    the name of the node that began to answer."""
    host = machine.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=ANSWER_S)
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 40,
        "messages": [{"role": "user", "content": question}],
    }
    notes: list[str] = []
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        if answer.status != 200:
            raise DemoFailed(f"{machine.name} refused: {answer.read(2000)!r}")
        node = answer.headers.get("x-mesh-node", "?")
        for text in pieces_of(_noting(answer, notes)):
            piece(text, node)
    except (OSError, http.client.HTTPException) as error:
        raise DemoFailed(f"{machine.name} gave no answer: {error!r}") from None
    finally:
        connection.close()
    named = answer.headers.get
    attempts, reason = named("x-mesh-attempts", "?"), named("x-mesh-route-reason", "?")
    return Heard(node, attempts, reason, tuple(notes))


def _noting(lines: Iterable[bytes], notes: list[str]) -> Iterator[bytes]:
    """The lines, and in `notes` what their comments say."""
    for line in lines:
        if line.startswith(b": "):
            notes.append(line[2:].decode().strip())
        yield line


def pieces_of(lines: Iterable[bytes]) -> Iterator[str]:
    """The text in the lines of an event stream. Raises DemoFailed where it ends in an error."""
    for line in lines:
        if not line.startswith(b"data: {"):
            continue
        chunk: Mapping[str, Any] = json.loads(line.removeprefix(b"data: "))
        if "error" in chunk:
            raise DemoFailed(f"the answer broke off: {chunk['error']}")
        yield from (choice["delta"].get("content") or "" for choice in chunk["choices"])


# Looking at the mesh


def _members(machine: Machine) -> list[dict[str, Any]]:
    if machine.process.poll() is not None:
        raise DemoFailed(f"{machine.name} ended with exit code {machine.process.returncode}")
    try:
        members: list[dict[str, Any]] = Node(machine.url, timeout_s=2).get("/mesh/v1/members")[
            "members"
        ]
    except Trouble:
        return []
    return members


def _warm(machine: Machine) -> int:
    """Nodes that this one would send work to now."""
    rows = [row for row in _members(machine) if row["state"] == "alive"]
    return sum(any(model.get("warm") for model in row["models"]) for row in rows)


def _state(machine: Machine, name: str) -> str:
    return next((row["state"] for row in _members(machine) if row["name"] == name), "")


def _model_of(machine: Machine, name: str) -> str:
    rows = (row for row in _members(machine) if row["name"] == name)
    return str(next(rows)["models"][0]["id"])


def _until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + READY_S
    while not true():
        if time.monotonic() > end:
            raise DemoFailed(f"waited {READY_S:g} s in vain for {what}")
        time.sleep(POLL_S)


def _stop(machines: list[Machine]) -> None:
    for machine in machines:
        machine.process.terminate()
    for machine in machines:
        try:
            machine.process.wait(10)
        except subprocess.TimeoutExpired:
            machine.process.kill()
            machine.process.wait()


def _show_logs(machines: list[Machine]) -> None:
    for machine in machines:
        lines = machine.log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        say("\n".join([f"--- {machine.name}", *lines]))


def say(text: str) -> None:
    """One line of the story."""
    print(text, flush=True)  # noqa: T201 - this is the program's output


def say_piece(text: str, _node: str = "") -> None:
    """A piece of an answer, as it comes."""
    print(text, end="", flush=True)  # noqa: T201 - this is the program's output


if __name__ == "__main__":
    sys.exit(main())
