"""Pick: one of the near-equals, at random or by the session's own lot.

Several routers that all take the single cheapest node on the same gossip take it together. Among
candidates within NEAR_EQUAL_RATIO of the best the choice is random, so equal machines share the
load whatever their ids are; beyond that the difference is real and the best is taken.

A session draws its lot once (`lot`, rendezvous hashing): among near-equals it always goes to the
same node, from whichever node it enters and whoever else joins or leaves. It is a tie-break, never
more: what a warm cache is worth is in the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

NEAR_EQUAL_RATIO = 0.03
"""Scores this close are the same score: a tenth of the error of a measured rate."""

T = TypeVar("T")


def near_equals(scored: Sequence[tuple[float, T]]) -> list[T]:
    """The candidates whose score is within NEAR_EQUAL_RATIO of the lowest.

    `scored` holds (score in seconds, candidate) and is not empty.
    """
    best = min(score for score, _ in scored)
    return [candidate for score, candidate in scored if score <= best * (1.0 + NEAR_EQUAL_RATIO)]


def pick(scored: Sequence[tuple[float, T]], rng: Random) -> T:
    """One of the near-equals."""
    near = near_equals(scored)
    return near[0] if len(near) == 1 else rng.choice(near)


def lot(session: str, node_id: str) -> bytes:
    """What a session drew for a node; the highest lot wins."""
    return blake2b(f"{session}\0{node_id}".encode("utf-8", "replace"), digest_size=8).digest()
