"""Pick: one of the near-equals, at random.

Several routers that all take the single cheapest node on the same gossip take it together. Among
candidates within NEAR_EQUAL_RATIO of the best the choice is random, so equal machines share the
load whatever their ids are; beyond that the difference is real and the best is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

NEAR_EQUAL_RATIO = 0.03
"""Scores this close are the same score: a tenth of the error of a measured rate."""

T = TypeVar("T")


def pick(scored: Sequence[tuple[float, T]], rng: Random) -> T:
    """One of the candidates whose score is within NEAR_EQUAL_RATIO of the lowest.

    `scored` holds (score in seconds, candidate) and is not empty.
    """
    best = min(score for score, _ in scored)
    near = [candidate for score, candidate in scored if score <= best * (1.0 + NEAR_EQUAL_RATIO)]
    return near[0] if len(near) == 1 else rng.choice(near)
