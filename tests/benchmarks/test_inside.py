"""The benchmark without sockets answers real requests."""

import json
import subprocess
import sys

import pytest

SMALL = """
from benchmarks import inside
inside.WARM_UP, inside.ROUNDS, inside.REQUESTS = 8, 2, {"json": 16, "stream": 16}
inside.work("%s")
"""


@pytest.mark.parametrize("kind", ["json", "stream"])
def test_every_round_is_timed(kind: str) -> None:
    """A process prints the us of each round; an answer other than a 200 would have ended it."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL % kind], capture_output=True, text=True, timeout=60, check=True
    )
    took = json.loads(done.stdout)
    assert len(took) == 2
    assert all(us > 0 for us in took)
