"""The benchmark without sockets answers real requests."""

import json
import subprocess
import sys

import pytest

from benchmarks import inside

SMALL = """
from benchmarks import inside
inside.WARM_UP, inside.ROUNDS, inside.REQUESTS = 8, 2, {"json": 16, "stream": 16}
inside.work("%s", 0)
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


def test_one_round_of_as_many_as_are_counted() -> None:
    """What is counted under valgrind is exactly so many requests more."""
    counted = SMALL.replace('"%s", 0', '"json", 24')
    done = subprocess.run(
        [sys.executable, "-c", counted], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(json.loads(done.stdout)) == 1


def test_the_total_of_a_profile_is_found() -> None:
    """The first figure of callgrind's total is the instructions, whatever else it counted."""
    assert inside.total("events: Ir Dr\nfn=(1) f\n10 5 1\n\ntotals: 123456 789\n") == 123456


def test_a_machine_without_valgrind_is_told(monkeypatch, capsys) -> None:
    """Nothing is counted by guess."""
    monkeypatch.setattr(inside.shutil, "which", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["inside", "--instructions"])
    assert inside.main() == 1
    assert "valgrind" in capsys.readouterr().err
