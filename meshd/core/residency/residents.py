"""Models in memory, as the rules see them, and in which order they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from protocol.frozen import frozen


@frozen
class Resident:
    """One model in memory, or on its way in."""

    model_id: str
    total_bytes: int
    last_used_s: float
    """On the clock of `now`."""
    busy: bool = False
    """It loads, or jobs run or wait in it."""
    pinned: bool = False
    kept: bool = False
    """Keep-alive does not apply: the owner named it at the start."""
    card_bytes: int = 0
    """Of graphics cards' own memory (`offload`); not part of `total_bytes`."""

    @property
    def may_go(self) -> bool:
        """It can be evicted without anybody noticing but by a cold start."""
        return not self.busy and not self.pinned


def coldest_first(residents: Iterable[Resident]) -> list[Resident]:
    """Those that may go, in the order in which they should."""
    return sorted((each for each in residents if each.may_go), key=_coldness)


def needed(
    leaving: Sequence[Resident], spare_bytes: int, size: Callable[[Resident], int]
) -> list[Resident]:
    """Without those, warmest first, that `spare_bytes` more than needed allow to stay."""
    staying = set()
    for resident in reversed(leaving):
        if size(resident) <= spare_bytes:
            spare_bytes -= size(resident)
            staying.add(resident.model_id)
    return [each for each in leaving if each.model_id not in staying]


def _coldness(resident: Resident) -> float:
    return resident.last_used_s
