"""What does a node cost in front of a server? `python -m benchmarks.gateway [--json]`

Beside the same server alone, nginx and LiteLLM, in the same minute, on the same cores. How, and
what the figures do not say: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import compileall
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import meshd
import protocol
from benchmarks import servers
from benchmarks.machine import assign, describe, difference, pin, rss_mb, summary
from benchmarks.measure import MeasureError, rate, say, ttft
from benchmarks.servers import Server, StartError
from benchmarks.stub import CHUNKS

ROUNDS = 1_000
STARTS = 5
PARTS = ("ttft", "json", "stream", "start")
PEERS = ("nginx", "litellm")


def run(seconds: float, only: set[str], peers: set[str]) -> dict[str, Any]:
    """Measure everything asked for. Raises StartError or MeasureError."""
    place = assign(("gateway", "load and stub"))
    machine = describe(place)
    figures: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshd-bench-")))
        stub = stack.enter_context(servers.stub(home))
        figures["stub"] = measure(stub, stub, seconds, only, place)
        with servers.node(home, upstream=stub.port) as node:
            servers.wait_for_model(node.port)
            figures["meshd"] = measure(node, stub, seconds, only, place)
        for name in PEERS:
            begin = {"nginx": servers.nginx, "litellm": servers.litellm}[name]
            if name not in peers:
                continue
            with begin(home, stub.port) as peer:
                if peer is None:
                    say(f"{name} is not installed: left out")
                else:
                    figures[name] = measure(peer, stub, seconds, only, place)
        if "start" in only:
            say(f"starting the daemon {STARTS} times")
            figures["meshd"]["start_s"] = start_s(home, stub.port)
    return {**figures.pop("meshd"), "beside": figures, "machine": machine}


def measure(
    server: Server, stub: Server, seconds: float, only: set[str], place: dict[str, int | None]
) -> dict[str, Any]:
    """Every part for one server: first free, then alone on its core. Raises MeasureError."""
    say(f"{server.name}:")
    figures: dict[str, Any] = {}
    if "ttft" in only:
        pin(stub.pid, None)
        took = ttft({"stub": stub.port, server.name: server.port}, ROUNDS)
        through, alone = summary(took[server.name]), summary(took["stub"])
        if server is stub:
            figures["ttft_ms"] = alone
        else:
            figures["added_ttft_ms"] = difference(through, alone)
            say(f"  adds {figures['added_ttft_ms']['p50']} ms")
    core = place["load and stub"]
    pin(server.pid, place["gateway"])
    pin(stub.pid, core)
    if "json" in only:
        answers = rate(server, stream=False, seconds=seconds, core=core)
        figures["json_rps"] = round(answers.per_s)
        figures["cpu_us_per_request"] = round(answers.cpu_us, 1)
    if "stream" in only:
        streams = rate(server, stream=True, seconds=seconds, core=core)
        figures["stream_rps"] = round(streams.per_s)
        figures["cpu_us_per_chunk"] = round(streams.cpu_us / CHUNKS, 2)
    figures["rss_mb"] = round(rss_mb(server.pid), 1)
    return figures


def start_s(home: Path, upstream: int) -> float:
    """Median of several process starts to the first 200 on /health, from an empty state.

    The code is compiled before, as in every start of a machine but its first; a shell that keeps
    Python from writing that down (PYTHONDONTWRITEBYTECODE) would add a third of a second to each.
    """
    for package in (meshd, protocol):
        compileall.compile_dir(package.__path__[0], quiet=1)
    took = []
    for _ in range(STARTS):
        with servers.node(home, upstream=upstream) as made:
            took.append(made.start_s)
    return round(statistics.median(took), 3)


def table(result: dict[str, Any]) -> str:
    """The figures for a person."""
    rows = [("", "added TTFT p50/p99 ms", "JSON/s", "streams/s", "us/request", "us/chunk", "MB")]
    for name, figures in {"meshd": result, **result["beside"]}.items():
        added = figures.get("added_ttft_ms")
        shown = f"{added['p50']:.2f} / {added['p99']:.2f}" if added else "-"
        keys = ("json_rps", "stream_rps", "cpu_us_per_request", "cpu_us_per_chunk", "rss_mb")
        rows.append((name, shown, *(str(figures.get(key, "-")) for key in keys)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([*lines, f"start to first answer: {result.get('start_s', '-')} s"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each rate (3)")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part")
    parser.add_argument(
        "--beside", action="append", choices=(*PEERS, "none"), help="only this peer"
    )
    args = parser.parse_args()
    try:
        result = run(args.seconds, set(args.only or PARTS), set(args.beside or PEERS) - {"none"})
    except (StartError, MeasureError) as error:
        say(f"gateway: {error}")
        return 1
    print(json.dumps(result) if args.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
