"""Does a node grow with use? `python -m benchmarks.soak [--json] [--minutes M] [--beside litellm]`

Two nodes of one mesh, one with the stub's model and one that forwards, get what a household's
clients do in a month: whole answers, streams, clients that leave in the middle, requests that are
wrong. After each round their memory, open files and threads are read. How: METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.load import request
from benchmarks.machine import describe, family, rss_mb
from benchmarks.measure import WARMUP_S, MeasureError, rate, say
from benchmarks.servers import Server, StartError

PART_S = 4.0
"""Whole answers, then as long streams, of each server in each round."""

LEAVERS = 200
"""Clients of each round that close their connection in the middle of a stream."""

WRONG = 200
"""Requests of each round that no model answers."""

READ_BYTES = 512
"""Of a stream, before its client leaves."""

QUIET_S = 2.0
"""After a round, before it is read: what is under way ends, and timers fire."""

CLIENT_TIMEOUT_S = 30.0
"""For one read; a server that is silent for so long has failed."""

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends a reset, as a laptop does whose lid was shut on a program."""

BODIES = (
    b'{"model": "nobody", "messages": [{"role": "user", "content": "?"}]}',
    b'{"model": "stub", "messages": [',
)


@dataclass
class Growth:
    """What was read of one server after each round."""

    server: Server
    rss_mb: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    """Served so far."""
    served: int = 0

    def read(self) -> None:
        """Now."""
        members = [Path(f"/proc/{pid}") for pid in family(self.server.pid)]
        self.rss_mb.append(rss_mb(self.server.pid))
        self.files.append(sum(len(list((each / "fd").iterdir())) for each in members))
        self.threads.append(sum(len(list((each / "task").iterdir())) for each in members))
        self.requests.append(self.served)

    def summary(self) -> dict[str, Any]:
        """Bytes a request, from the second round on: the first fills what is kept on purpose. The
        slope is Theil's and Sen's, the median over all pairs of rounds."""
        points = list(zip(self.requests, self.rss_mb, strict=True))[1:]
        slopes = [
            (later[1] - earlier[1]) * 1e6 / (later[0] - earlier[0])
            for index, earlier in enumerate(points)
            for later in points[index + 1 :]
        ]
        return {
            "requests": self.served,
            "rss_mb": [round(each, 1) for each in self.rss_mb],
            "bytes_per_request": round(statistics.median(slopes), 2) if slopes else None,
            "open_files": [self.files[0], self.files[-1]],
            "threads": [self.threads[0], self.threads[-1]],
        }


def one_round(growth: Growth) -> None:
    """Every kind of client, at one server. Raises MeasureError."""
    server = growth.server
    for stream in (False, True):
        made = rate(server, stream=stream, seconds=PART_S, core=None)
        growth.served += round(made.per_s * (PART_S + WARMUP_S))
    stream_of = request(server.port, stream=True)
    each_of(LEAVERS, server.port, lambda client: leave(client, stream_of))
    each_of(WRONG, server.port, ask_wrongly)
    growth.served += LEAVERS + WRONG


def each_of(count: int, port: int, act: Callable[[socket.socket], None]) -> None:
    """So many clients, one after the other, each with a connection of its own."""
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), CLIENT_TIMEOUT_S) as client:
            act(client)


def leave(client: socket.socket, message: bytes) -> None:
    """Ask, read the beginning, and be gone."""
    client.sendall(message)
    client.recv(READ_BYTES)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def ask_wrongly(client: socket.socket) -> None:
    """A body that is refused, one way or the other. Raises MeasureError where it is not."""
    body = secrets.choice(BODIES)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)
    status = client.recv(READ_BYTES)[9:12]
    if status[:1] not in {b"4", b"5"}:
        raise MeasureError(f"{body.decode()} was answered with {status.decode()}")


def run(minutes: float, beside: set[str]) -> dict[str, Any]:
    """Rounds until the time is over, one at least. Raises StartError or MeasureError."""
    result: dict[str, Any] = {"emulated": "the model is a stub", "machine": describe({})}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshd-bench-")))
        key = home / "mesh.key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
        stub = stack.enter_context(servers.stub(home))
        mesh_port = servers.free_port(2)
        serving = servers.node(
            home, name="serving", upstream=stub.port, mesh_key_file=key, mesh_port=mesh_port
        )
        entry = servers.node(home, name="entry", mesh_key_file=key, peer=mesh_port)
        ours = [stack.enter_context(serving), stack.enter_context(entry)]
        for node in ours:
            servers.wait_for_model(node.port)
        rivals = []
        if "litellm" in beside:
            rival = stack.enter_context(servers.litellm(home, stub.port))
            rivals += [rival] if rival is not None else []
        grown = [Growth(server) for server in (*ours, *rivals)]
        until = time.monotonic() + 60 * minutes
        while not grown[0].rss_mb or time.monotonic() < until:
            say(f"round {len(grown[0].rss_mb) + 1}")
            for each in grown:
                one_round(each)
            time.sleep(QUIET_S)
            for each in grown:
                each.read()
        found = {each.server.name: each.summary() for each in grown}
        result["rounds"] = len(grown[0].rss_mb)
        result |= {node.name: found[node.name] for node in ours}
        result["beside"] = {rival.name: found[rival.name] for rival in rivals}
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--beside", action="append", choices=("litellm",), default=[])
    args = parser.parse_args()
    try:
        result = run(args.minutes, set(args.beside))
    except (StartError, MeasureError) as error:
        say(f"soak: {error}")
        return 1
    if args.json:
        print(json.dumps(result))
        return 0
    for name, figures in {**result, **result["beside"]}.items():
        if isinstance(figures, dict) and "rss_mb" in figures:
            print(name, *(f"{each} {figure}" for each, figure in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
