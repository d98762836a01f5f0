"""What does the extra encrypted hop cost? `python -m benchmarks.relay [--json]`

Two nodes of one mesh: one serves the stub's model, the other has no engine and forwards. The same
request goes to both in turn; the difference is the hop. How: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.machine import assign, cpu_s, describe, difference, pin, rss_mb, summary
from benchmarks.measure import MeasureError, rate, say, ttft
from benchmarks.servers import StartError
from benchmarks.stub import CHUNKS

ROUNDS = 1_000
PARTS = ("ttft", "stream")


def run(seconds: float, only: set[str]) -> dict[str, Any]:
    """Measure the hop. Raises StartError or MeasureError."""
    place = assign(("entry node", "serving node", "load and stub"))
    load_core = place["load and stub"]
    result: dict[str, Any] = {"emulated": "the model is a stub", "machine": describe(place)}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshd-bench-")))
        key = home / "mesh.key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
        say("starting two nodes of one mesh")
        stub = stack.enter_context(servers.stub(home))
        mesh_port = servers.free_port(2)
        serving = stack.enter_context(
            servers.node(
                home,
                name="serving",
                upstream=stub.port,
                mesh_key_file=key,
                mesh_port=mesh_port,
            )
        )
        entry = stack.enter_context(
            servers.node(home, name="entry", mesh_key_file=key, peer=mesh_port)
        )
        for node in (serving, entry):
            servers.wait_for_model(node.port)
        if "ttft" in only:
            say(f"time to the first word, {ROUNDS} rounds of both in turn")
            took = ttft({"serving": serving.port, "entry": entry.port}, ROUNDS)
            alone, through = summary(took["serving"]), summary(took["entry"])
            result["added_ttft_ms"] = difference(through, alone)
            result["ttft_ms"] = {"entry": through, "serving": alone}
        if "stream" in only:
            say(f"streams through both at concurrency 32, {seconds:g} s")
            for server, role in ((entry, "entry node"), (serving, "serving node")):
                pin(server.pid, place[role])
            pin(stub.pid, load_core)
            before_s = cpu_s(serving.pid)
            measured = rate(entry, stream=True, seconds=seconds, core=load_core)
            result["stream_rps"] = round(measured.per_s)
            result["cpu_us_per_chunk"] = round(measured.cpu_us / CHUNKS, 2)
            say(f"  the serving node used {cpu_s(serving.pid) - before_s:.2f} s of its core")
            direct = rate(serving, stream=True, seconds=seconds, core=load_core)
            result["beside"] = {"serving node alone": {"stream_rps": round(direct.per_s)}}
        result["rss_mb"] = round(rss_mb(entry.pid), 1)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each rate (3)")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part")
    args = parser.parse_args()
    try:
        result = run(args.seconds, set(args.only or PARTS))
    except (StartError, MeasureError) as error:
        say(f"relay: {error}")
        return 1
    if args.json:
        print(json.dumps(result))
    else:
        added = result.get("added_ttft_ms", {})
        print(f"the hop adds {added.get('p50', '-')} ms (p50), {added.get('p99', '-')} ms (p99)")
        print(f"{result.get('stream_rps', '-')} streams/s of {CHUNKS} chunks through both nodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
