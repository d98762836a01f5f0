"""How fast does a Python run the kind of code that a node is made of? `python pace.py` prints it.

One that was compiled without the usual optimisations (by pyenv, unless it is told otherwise) takes
half as much time again for a step of this, and a quarter for a request. So `make` asks each that it
could take, before anything is installed, and the doctor asks the system's: this file is run by any
Python, by itself, and knows nothing of meshd.
"""

from __future__ import annotations

import sys
import timeit

STEP = """
class Pair:
    __slots__ = ("first", "second")

    def __init__(self, first, second):
        self.first = first
        self.second = second


async def inner(pair):
    return {"sum": pair.first + pair.second}


async def outer():
    return await inner(Pair(1, second=2))


def step():
    try:
        outer().send(None)
    except StopIteration as end:
        return end.value["sum"]
"""
"""Small objects, coroutines, a dict: no function of a node takes more than a twentieth of its time,
and this is what they are all made of."""

STEPS = 1_000
ROUNDS = 40
"""A twentieth of a second; the best round is the one that nothing else disturbed."""


def step_ns() -> float:
    """Nanoseconds of one step on the Python that runs this."""
    return min(timeit.repeat("step()", STEP, number=STEPS, repeat=ROUNDS)) / STEPS * 1e9


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever asks does not know the version
        sys.exit("meshd needs Python 3.11 or newer")
    sys.stdout.write(f"{step_ns():.0f}\n")
