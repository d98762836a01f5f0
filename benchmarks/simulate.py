"""Membership at sizes that no single machine can hold: `python -m benchmarks.simulate --json`.

Virtual seconds of the simulator in `tests/sim`: real membership machines, a modelled network. One
seed gives the same figures everywhere, so these do not depend on how busy this machine is; only the
time they take does. Fields and their meaning: benchmarks/METHODOLOGY.md, "Simulated".
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.machine import describe
from benchmarks.measure import say
from tests.sim.measure import detect, load, starved

SIZES = (10, 50)
THOUSAND = 1_000
STARVED_NODES = 50

SEEDS = 20

RARE = 10
"""Runs that take half a minute each (1,000 nodes; 120 s of 50) are made for one seed in so many."""


def detection(seeds: int) -> dict[str, Any]:
    """Killed and silent, seen by all."""
    return {f"n{nodes}": detect(nodes, seeds) for nodes in SIZES}


def load_change(seeds: int) -> dict[str, Any]:
    """A changed load, seen by all."""
    return {f"n{nodes}": load(nodes, seeds) for nodes in SIZES}


def thousand(seeds: int) -> dict[str, Any]:
    """A silent host among a thousand, seen by all."""
    return detect(THOUSAND, few(seeds))


def starving(seeds: int) -> dict[str, Any]:
    """False deaths while one node in ten gets the processor only now and then."""
    return starved(STARVED_NODES, few(seeds))


def few(seeds: int) -> int:
    """How many of the seeds a run of half a minute gets."""
    return max(1, seeds // RARE)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "detect": detection,
    "load": load_change,
    "thousand": thousand,
    "starved": starving,
}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate")
    parser.add_argument("--json", action="store_true", help="one JSON object in one line")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help=f"default {SEEDS}; a tenth for the large runs"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    given = parser.parse_args(words)
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    return given


def figures(seeds: int, parts: list[str]) -> dict[str, Any]:
    """All parts, one after the other."""
    found: dict[str, Any] = {"simulated": True, "seeds": seeds}
    for name in parts:
        began = time.monotonic()
        found[name] = PARTS[name](seeds)
        say(f"{name}: {time.monotonic() - began:.0f} s")
    return found


def main() -> None:
    """Prints one JSON object."""
    given = parse()
    measured = figures(given.seeds, given.only) | {"machine": describe({})}
    print(json.dumps(measured, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
