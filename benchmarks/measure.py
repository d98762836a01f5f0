"""One measurement each: run the load generator beside a server and read what the server cost."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.machine import cpu_s, pinned
from benchmarks.servers import Server

CONCURRENCY = 32
WARMUP_S = 1.0
LOAD_LIMIT_S = 300.0


class MeasureError(Exception):
    """The load generator gave up; the text is its own."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Answers a second, and processor time per answer of the server that gave them."""

    per_s: float
    cpu_us: float


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def ttft(targets: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the first word of a stream, per target, paired. Raises MeasureError.

    Nothing is pinned: one request at a time does not fill a core, and threads that hand it to each
    other would wait for a core they need not share.
    """
    task = {"measure": "ttft", "targets": targets, "rounds": rounds}
    with _load(None) as load:
        result: dict[str, list[float]] = json.loads(_finish(load, task))
    return result


def rate(server: Server, *, stream: bool, seconds: float, core: int | None) -> Rate:
    """A closed loop of CONCURRENCY requests, after a warm-up. Raises MeasureError."""
    task = {
        "measure": "rate",
        "port": server.port,
        "stream": stream,
        "concurrency": CONCURRENCY,
        "seconds": seconds,
        "warmup": WARMUP_S,
    }
    with _load(core) as load:
        assert load.stdin is not None
        assert load.stderr is not None
        load.stdin.write(json.dumps(task))
        load.stdin.close()
        first = load.stderr.readline()
        before_s = cpu_s(server.pid)
        last = load.stderr.readline()
        used_s = cpu_s(server.pid) - before_s
        assert load.stdout is not None
        text = load.stdout.read()
        if load.wait(LOAD_LIMIT_S) != 0:
            raise MeasureError(f"{server.name}: {first}{last}{load.stderr.read()}".strip())
    result = json.loads(text)
    say(f"  {server.name}: {result['per_s']:.0f} {'streams' if stream else 'answers'}/s")
    return Rate(result["per_s"], used_s / max(1, result["answers"]) * 1e6)


def _load(core: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.load"]
    pipe = subprocess.PIPE
    with pinned(core):
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _finish(load: subprocess.Popen[str], task: dict[str, Any]) -> str:
    out, errors = load.communicate(json.dumps(task), timeout=LOAD_LIMIT_S)
    if load.returncode != 0:
        raise MeasureError(errors.strip())
    return out
