"""Who is here, and how soon is it known? `python -m benchmarks.membership COMMAND [--json]`

    detect   a killed process and a cut cable: seconds until all others know
    join     a new machine: seconds until all list all
    loss     frames are lost at random: false deaths
    starved  one node in ten hardly gets to run: false deaths (simulated)
    idle     what a node costs while nothing happens

Real daemons run in network namespaces on one bridge, kinship and serf beside them in the same
minutes where they are installed. Meshes too large for this machine are simulated, and say so. How,
and what the figures do not say: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import membership_rivals as rivals
from benchmarks import membership_runs as runs_of
from benchmarks.machine import describe
from benchmarks.measure import say
from tests.netns.networks import UNAVAILABLE, Lan

REAL_MAX = 30
"""Daemons that this benchmark starts for real: 30 x 50 MB, and half a core while idle."""

RIVALS = {"kinship": rivals.kinship, "serf": rivals.serf}
LAN_NAMES = {"meshd": "us", "kinship": "kin", "serf": "serf"}


@contextmanager
def crew_of(who: str, nodes: int) -> Iterator[runs_of.Crew | None]:
    """A whole mesh of ours or of a rival's; None when the rival is not installed."""
    with ExitStack() as stack:
        rival = RIVALS[who]() if who in RIVALS else None
        if who in RIVALS and rival is None:
            say(f"{who} is not installed: left out")
            yield None
            return
        say(f"{who}: {nodes} nodes")
        lan = stack.enter_context(Lan(LAN_NAMES[who], nodes))
        if rival is not None:
            yield stack.enter_context(rivals.Crew(rival, lan))
            return
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshd-bench-")))
        crew = stack.enter_context(runs_of.daemons(home, lan))
        yield crew


def beside(given: argparse.Namespace, measure: Callable[[runs_of.Crew], Any]) -> dict[str, Any]:
    """The same measurement of ours and of each rival, one after the other."""
    figures: dict[str, Any] = {}
    for who in ("meshd", *given.peers):
        with crew_of(who, given.nodes) as crew:
            if crew is not None:
                figures[who] = measure(crew)
    ours: dict[str, Any] = figures.pop("meshd")
    return {**ours, "beside": figures}


def detect(given: argparse.Namespace) -> dict[str, Any]:
    """Killed and silent, ours and theirs."""
    if given.nodes > REAL_MAX:
        return simulated("detect", given)

    def measure(crew: runs_of.Crew) -> dict[str, Any]:
        return {
            "killed": runs_of.killed(crew, given.runs),
            "silent": runs_of.silent(crew, given.runs),
        }

    return {**beside(given, measure), "polled_every_s": runs_of.poll_s(given.nodes)}


def join(given: argparse.Namespace) -> dict[str, Any]:
    """With a typed peer and without multicast, then by mDNS alone."""
    figures = {}
    for name, typed in (("typed_s", True), ("mdns_s", False)):
        say(f"meshd: a newcomer to {given.nodes - 1} nodes, {name}")
        with tempfile.TemporaryDirectory(prefix="meshd-bench-") as home:
            figures[name] = runs_of.joins(Path(home), given.nodes, given.runs, typed=typed)
    return {"n": given.nodes, "runs": given.runs, **figures}


def loss(given: argparse.Namespace) -> dict[str, Any]:
    """False deaths on a lossy network, ours and theirs."""
    figures = beside(given, lambda crew: runs_of.lossy(crew, given.loss, given.seconds))
    return {"loss": given.loss / 100, "seconds": given.seconds, **figures}


def starved(given: argparse.Namespace) -> dict[str, Any]:
    """Fifty real nodes do not fit on this machine without starving all of them."""
    return simulated("starved", given)


def idle(given: argparse.Namespace) -> dict[str, Any]:
    """Traffic, processor and memory per node, ours and theirs."""
    return {
        "seconds": given.seconds,
        **beside(given, lambda crew: runs_of.resting(crew, given.seconds)),
    }


def simulated(what: str, given: argparse.Namespace) -> dict[str, Any]:
    """The same question to the simulator: virtual time, many seeds."""
    say(f"simulating {given.nodes} nodes, {given.runs} seeds")
    command = [sys.executable, "-m", "tests.sim", "measure", what]
    command += ["--nodes", str(given.nodes), "--seeds", str(given.runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return {"simulated": True, **figures}


COMMANDS = {command.__name__: command for command in (detect, join, loss, starved, idle)}
DEFAULT_NODES = {"starved": 50}
DEFAULT_SECONDS = {"idle": 30.0}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.membership")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--json", action="store_true", help="one JSON object in one line")
    parser.add_argument("--nodes", type=int, help="default 10; starved: 50")
    parser.add_argument("--runs", type=int, default=10, help="runs, or seeds of a simulation")
    parser.add_argument("--seconds", type=float, help="loss: default 60; idle: 30")
    parser.add_argument("--loss", type=int, default=5, metavar="PERCENT")
    parser.add_argument("--peers", nargs="*", choices=RIVALS, default=list(RIVALS))
    given = parser.parse_args(words)
    given.nodes = given.nodes or DEFAULT_NODES.get(given.command, 10)
    given.seconds = given.seconds or DEFAULT_SECONDS.get(given.command, 60.0)
    return given


def main() -> None:
    """Exits 1 where real networks are needed and cannot be made here."""
    given = parse()
    if UNAVAILABLE and given.command != "starved" and given.nodes <= REAL_MAX:
        raise SystemExit(f"benchmarks.membership {given.command}: {UNAVAILABLE}")
    machine = describe({}) | {"network": "namespaces on one bridge"}
    figures = {**COMMANDS[given.command](given), "machine": machine}
    print(json.dumps(figures, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
