"""What do clients notice of machines that go? `python -m benchmarks.failover [--json] [--quick]`

Real daemons on loopback that are killed, stopped, left and flooded. What each figure means, and
what it does not: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.failover_runs import PARTS, printed
from benchmarks.machine import describe
from benchmarks.measure import say


def run(parts: Collection[str], *, quick: bool) -> dict[str, Any]:
    """Measure everything asked for."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as home:
        for name, (measure, much, little) in PARTS.items():
            if name in parts:
                say(f"{name}:")
                result[name] = measure(Path(home) / name, little if quick else much)
    return {**result, "machine": describe({})}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, or less")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="only this part")
    args = parser.parse_args()
    result = run(args.only or tuple(PARTS), quick=args.quick)
    print(json.dumps(result) if args.json else printed(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
