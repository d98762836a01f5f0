"""Who is here, in a form that can be drawn from.

A dict keeps order but cannot be sampled; a set can be neither sampled nor replayed. A list with an
index does everything in constant time: add, remove (the last one takes the gap), draw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from random import Random


class Roll:
    """Distinct names. Their order depends only on what was done, so a seed replays exactly."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def add(self, name: str) -> None:
        """No harm when it is there."""
        if name not in self._places:
            self._places[name] = len(self._names)
            self._names.append(name)

    def discard(self, name: str) -> None:
        """No harm when it is not there."""
        place = self._places.pop(name, None)
        if place is None:
            return
        last = self._names.pop()
        if last != name:
            self._names[place] = last
            self._places[last] = place

    def window(self, start: int, most: int) -> list[str]:
        """Up to `most` names, beginning at `start` and going round."""
        if most >= len(self._names):
            return list(self._names)
        start %= len(self._names)
        return (self._names + self._names)[start : start + most]

    def sample(self, most: int, rng: Random, without: Collection[str] = ()) -> list[str]:
        """Up to `most` names drawn at random, `without` some."""
        drawn = rng.sample(self._names, min(most + len(without), len(self._names)))
        return [name for name in drawn if name not in without][:most]
