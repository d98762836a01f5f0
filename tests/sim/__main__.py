"""Replay a scenario under one seed, or measure. See the package's head."""

from __future__ import annotations

import argparse
import json

from tests.sim.measure import MEASURES
from tests.sim.scenarios import SCENARIOS


def main() -> None:
    """The command line. Exits 1 with a traceback when a scenario fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the scenarios")
    replay = commands.add_parser("replay", help="run one scenario under one seed")
    replay.add_argument("scenario", choices=sorted(SCENARIOS))
    replay.add_argument("seed", type=int)
    measure = commands.add_parser("measure", help="run many seeds and print figures as JSON")
    measure.add_argument("what", choices=sorted(MEASURES))
    measure.add_argument("--nodes", type=int, default=10)
    measure.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    if given.command == "list":
        for name, scenario in SCENARIOS.items():
            print(f"{name:14} {' '.join((scenario.__doc__ or '').split())}")
    elif given.command == "replay":
        SCENARIOS[given.scenario](given.seed)
        print(f"{given.scenario} {given.seed}: passed")
    else:
        print(json.dumps(MEASURES[given.what](given.nodes, given.seeds)))


if __name__ == "__main__":
    main()
