"""What does a request cost inside a node? `python -m benchmarks.inside [--json] [--beside FOLDER]`

The whole node, from the bytes of a request to the bytes of its answer, with the sockets taken away
from under it, in processor time of its one busy thread. `--beside` names another checkout, which is
measured at the same time on the same core: their ratio is steady to two or three per cent where
whole runs (`benchmarks.gateway`) move by a quarter, and so shows what a change to the code did.

`--instructions` counts the instructions of that thread under valgrind instead, where it is
installed: a count does not see a cache that is too small, but it is steady to half a per cent,
however busy the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVarTuple

import uvloop

from benchmarks import stub
from benchmarks.machine import cores, describe, pinned
from benchmarks.measure import MeasureError
from meshd.config import Settings
from meshd.daemon import settle
from meshd.engine.places import Machine
from meshd.engine.roster import roster
from meshd.engine.spec import parse
from meshd.host.probe import host_probe, settled_bytes
from meshd.net.mesh import MeshNet
from meshd.node import Node
from meshd.notices import Notices

CONNECTIONS = 8
"""Requests under way at once: enough that each finds the traces of others in the caches."""

WARM_UP = 500
"""Requests before the first round."""

REQUESTS = {"json": 1_500, "stream": 400}
"""Of one round: about half a second."""

ROUNDS = 7
"""Of one process; the figure is their median."""

PAIRS = 5
"""Processes of each checkout, one after the other."""

LOOK_S = 0.05
LOOKS = 200
"""For the model: a node lists it in its first second."""

DEADLINE_S = 120.0
"""For one process; it takes ten seconds, and forty under valgrind."""

COUNTED = (100, 400)
"""Requests of two runs: what the longer one takes more is what requests cost, without the start."""

VALGRIND = ("valgrind", "-q", "--tool=callgrind", "--separate-threads=yes")

STRETCH = 1_000.0
"""Under valgrind everything takes fifty times as long, but the clock does not know: what a node
does once a second would count fifty times. So while requests are counted, timers are late."""


Process = subprocess.Popen[str]
Ts = TypeVarTuple("Ts")


class Upstream(asyncio.Transport):
    """A connection to the stub, which answers in the next step of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol

    def write(self, data: Any) -> None:
        """A whole request."""
        if data.startswith(b"GET"):
            answer = stub.MODELS
        elif b'"stream":true' in data:
            answer = stub.STREAM_WITH_USAGE
        else:
            answer = stub.PLAIN
        self._loop.call_soon(self._protocol.data_received, answer)

    def abort(self) -> None:
        """Nothing is open."""


class Client(asyncio.Transport):
    """A client's connection: when its answer is whole, `ask` is called; `over` is told of an answer
    that is none."""

    def __init__(
        self, ending: bytes, ask: Callable[[Client], object], over: asyncio.Future[None]
    ) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol: asyncio.Protocol
        self._ending = ending
        self._ask = ask
        self._over = over
        self._received = b""

    def write(self, data: Any) -> None:
        """Some of an answer."""
        self._received += data
        if not self._received.startswith(b"HTTP/1.1 200"):
            if not self._over.done():
                self._over.set_exception(MeasureError(self._received.decode("utf-8", "replace")))
        elif self._received.endswith(self._ending):
            self._received = b""
            self._ask(self)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing is open."""

    abort = close

    def pause_reading(self) -> None:
        """Requests come one at a time."""

    resume_reading = pause_reading


class Socketless(uvloop.Loop):
    """A loop whose connections are objects: whoever would be accepted is made by `door`."""

    door: Callable[[], asyncio.Protocol]
    stretch = 1.0

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Later still, by `stretch`."""
        return super().call_later(delay * self.stretch, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Later still, by `stretch`."""
        now = self.time()
        late = now + (when - now) * self.stretch
        return super().call_at(late, callback, *args, context=context)

    async def create_server(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        """Listens as well, so that the node knows its port."""
        self.door = protocol_factory
        return await super().create_server(protocol_factory, *args, **kwargs)

    async def create_connection(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        """To the stub, whatever the address."""
        protocol = protocol_factory()
        transport = Upstream(self, protocol)
        protocol.connection_made(transport)
        return transport, protocol


def request(kind: str) -> bytes:
    """What a client sends."""
    question = [{"role": "user", "content": "Say something."}]
    body = stub.packed({"model": stub.MODEL, "messages": question, "stream": kind == "stream"})
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body


async def one_round(kind: str, count: int) -> float:
    """Processor time of `count` requests, us each. Raises MeasureError."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Socketless)
    over: asyncio.Future[None] = loop.create_future()
    sent = request(kind)
    left, waiting = count, CONNECTIONS

    def ask(client: Client) -> None:
        nonlocal left, waiting
        if left:
            left -= 1
            loop.call_soon(client.protocol.data_received, sent)
            return
        waiting -= 1
        if not waiting and not over.done():
            over.set_result(None)

    ending = b"0\r\n\r\n" if kind == "stream" else b"}"
    clients = [Client(ending, ask, over) for _ in range(CONNECTIONS)]
    for client in clients:
        client.protocol = loop.door()
        client.protocol.connection_made(client)
    began = time.thread_time()
    for client in clients:
        ask(client)
    await over
    took = time.thread_time() - began
    for client in clients:
        client.protocol.connection_lost(None)
    return took / count * 1e6


async def rounds(kind: str, home: Path, counted: int) -> list[float]:
    """One node in front of the stub: each round's us for a request; or one round of as many as are
    to be counted. Raises MeasureError."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Socketless)
    settings = Settings(
        home, "inside", http_port=0, mesh_host="127.0.0.1", mesh_port=0, relay_port=0, mdns=False,
        engines=("openai:http://127.0.0.1:1/v1,slots=64",), catalog=False, adopt=False,
    )  # fmt: skip
    notices, machine = Notices(), Machine(host_probe().read, settled_bytes)
    engines = roster([parse(text) for text in settings.engines], settings, machine)
    node = Node(settings, MeshNet(settings, notices.say), engines, host_probe(), notices)
    await node.start()
    try:
        for _ in range(LOOKS):
            if node.gateway.models():
                break
            await asyncio.sleep(LOOK_S)
        settle()
        if counted:
            loop.stretch = STRETCH
        await one_round(kind, WARM_UP)
        sizes = [counted] if counted else [REQUESTS[kind]] * ROUNDS
        return [await one_round(kind, size) for size in sizes]
    finally:
        loop.stretch = 1.0
        await node.close()


def work(kind: str, counted: int) -> None:
    """The life of one process: its rounds as JSON on standard output."""
    with (
        tempfile.TemporaryDirectory(prefix="meshd-bench-") as home,
        asyncio.Runner(loop_factory=Socketless) as runner,
    ):
        took = runner.run(asyncio.wait_for(rounds(kind, Path(home), counted), DEADLINE_S))
    print(json.dumps(took))


def start(kind: str, checkout: Path, under: tuple[str, ...] = (), counted: int = 0) -> Process:
    """A process that measures a checkout, with this module and that one's node; `under` is what
    runs it."""
    program = (sys.executable, "-P", str(Path(__file__).resolve()))
    command = [*under, *program, "--work", kind, "--counted", str(counted)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True
    )


def ended(process: Process, what: str) -> str:
    """Its last line."""
    output, _ = process.communicate(timeout=2 * DEADLINE_S)
    if process.returncode:
        raise SystemExit(f"inside: a process of {what} ended with {process.returncode}")
    return output.splitlines()[-1]


def instructions(kind: str, checkout: Path) -> int:
    """Of the busy thread, for one request."""
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as home:
        files = [Path(home, str(counted)) for counted in COUNTED]
        working = [
            start(kind, checkout, (*VALGRIND, f"--callgrind-out-file={file}"), counted)
            for file, counted in zip(files, COUNTED, strict=True)
        ]
        for process in working:
            ended(process, f"{kind} under valgrind")
        few, many = (total(Path(f"{file}-01").read_text()) for file in files)
    return round((many - few) / (COUNTED[1] - COUNTED[0]))


def total(profile: str) -> int:
    """All instructions of one thread, as callgrind tells them."""
    found = re.search(r"^(?:totals|summary): (\d+)", profile, re.MULTILINE)
    assert found is not None
    return int(found[1])


def measure(kind: str, checkouts: list[Path]) -> dict[str, Any]:
    """All of them at once, PAIRS times. Medians of processes, and what each pair says."""
    took: list[list[float]] = [[] for _ in checkouts]
    for _ in range(PAIRS):
        with pinned(cores()[0]):
            working = [start(kind, checkout) for checkout in checkouts]
        for figures, process in zip(took, working, strict=True):
            figures.append(statistics.median(json.loads(ended(process, kind))))
    result: dict[str, Any] = {"us": round(statistics.median(took[0]), 1)}
    if len(took) > 1:
        ratios = [ours / theirs for ours, theirs in zip(*took, strict=True)]
        result["beside_us"] = round(statistics.median(took[1]), 1)
        result["ratio"] = round(statistics.median(ratios), 3)
        result["ratios"] = [round(ratio, 3) for ratio in ratios]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--only", choices=sorted(REQUESTS), help="measure only this part")
    parser.add_argument("--beside", type=Path, help="another checkout, measured at the same time")
    parser.add_argument("--instructions", action="store_true", help="count, under valgrind")
    parser.add_argument("--work", choices=sorted(REQUESTS), help=argparse.SUPPRESS)
    parser.add_argument("--counted", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.counted)
        return 0
    if args.instructions and shutil.which("valgrind") is None:
        print("inside: --instructions needs valgrind, which is not installed", file=sys.stderr)
        return 1
    checkouts = [Path(__file__).resolve().parent.parent]
    checkouts += [args.beside.resolve()] if args.beside else []
    kinds = [args.only] if args.only else sorted(REQUESTS)
    result: dict[str, Any] = {}
    for kind in kinds:
        if args.instructions:
            counts = [instructions(kind, checkout) for checkout in checkouts]
            result[kind] = dict(zip(("instructions", "beside_instructions"), counts, strict=False))
        else:
            result[kind] = measure(kind, checkouts)
    if args.json:
        print(json.dumps({**result, "machine": describe({"node": cores()[0]})}))
    else:
        for kind, figures in result.items():
            print(kind, *(f"{name} {figure}" for name, figure in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
