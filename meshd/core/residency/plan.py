"""Which models are in memory: what may be loaded, what goes for it, and what goes under pressure.

What is free is the smaller truth of two witnesses. The machine says what is available now; but a
model that is still loading has not taken its pages yet, and weights that are mapped from a file
look available until they are needed. So of every reservation on this machine (this daemon's and
any other's) the part that does not show yet is subtracted:

    free = available - reserve - sum(reserved - settled)

`settled` is what a worker process holds for itself alone, as the system counts it. The reserve
belongs to the owner's own programs.

The rules of eviction:

- never a busy model, never a pinned one, never one that is still loading;
- least recently used first, and no more than needed: what turns out to be too much is kept;
- nothing is evicted for a load that will be refused all the same;
- a model that could never fit is `insufficient_memory`: asking again is useless. One that would fit
  if others were not busy or pinned is `overloaded` when waiting can help, else the first;
- the owner may force: then everything that may go goes, and the load is tried whatever the sum is.

Under critical pressure one idle model goes at each look, the coldest first, pinned ones never: the
next look sees what it brought. Keep-alive sends away what nobody asked for in a long time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshd.core.residency.footprint import Footprint, gigabytes

RESERVE_RATIO = 0.10
"""Of the machine's memory, kept for its owner's programs when nothing else is said."""

RESERVE_MAX_BYTES = 4 * 1024**3
"""Of that: more is not needed on a machine with 64 GB."""

KEEP_ALIVE_S = 30 * 60.0
"""A model that was loaded because somebody asked goes when nobody asked for half an hour."""


@dataclass(frozen=True, slots=True)
class Room:
    """The machine at one moment. `total_bytes` 0: it cannot be read, and is not judged."""

    total_bytes: int
    available_bytes: int
    reserve_bytes: int
    unsettled_bytes: int = 0
    """Promised on this machine, and not yet missing from what is available."""

    @property
    def free_bytes(self) -> int:
        """For another model; below 0 on a machine that is overbooked."""
        return self.available_bytes - self.reserve_bytes - self.unsettled_bytes

    @property
    def most_bytes(self) -> int:
        """For models on this machine at best, if nothing else ran."""
        return self.total_bytes - self.reserve_bytes


@dataclass(frozen=True, slots=True)
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

    @property
    def may_go(self) -> bool:
        """It can be evicted without anybody noticing but by a cold start."""
        return not self.busy and not self.pinned


@dataclass(frozen=True, slots=True)
class Admitted:
    """Load it, once these are gone; in this order."""

    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be loaded now. `code` is one of protocol.jobs.FAILURES."""

    code: str
    message: str


def reserve_bytes(total_bytes: int) -> int:
    """The owner's share of a machine when no setting says it."""
    return min(round(total_bytes * RESERVE_RATIO), RESERVE_MAX_BYTES)


def unsettled_bytes(promised: Iterable[tuple[int, int]]) -> int:
    """Of (reserved, settled) pairs, what does not show yet."""
    return sum(max(0, reserved - settled) for reserved, settled in promised)


def plan_load(
    model_id: str,
    need: Footprint,
    room: Room,
    residents: Sequence[Resident],
    *,
    force: bool = False,
) -> Admitted | Refused:
    """May a model that takes `need` be loaded beside `residents`, and what must go for it?"""
    if room.total_bytes <= 0:
        return Admitted()
    leaving: list[Resident] = []
    missing = need.total_bytes - room.free_bytes
    for resident in sorted((each for each in residents if each.may_go), key=_coldness):
        if missing <= 0:
            break
        leaving.append(resident)
        missing -= resident.total_bytes
    if missing > 0 and not force:
        return _refusal(model_id, need, room, residents, missing)
    return Admitted(tuple(each.model_id for each in _needed(leaving, -missing)))


def plan_shed(residents: Sequence[Resident]) -> str | None:
    """The model to give up while pressure is critical; None when none may go."""
    idle = [each for each in residents if each.may_go]
    return min(idle, key=_coldness).model_id if idle else None


def plan_expiry(
    residents: Sequence[Resident], now: float, keep_alive_s: float = KEEP_ALIVE_S
) -> list[str]:
    """Models that nobody asked for in `keep_alive_s`."""
    return [
        each.model_id
        for each in residents
        if each.may_go and not each.kept and now - each.last_used_s >= keep_alive_s
    ]


def _coldness(resident: Resident) -> float:
    return resident.last_used_s


def _needed(leaving: Sequence[Resident], spare: int) -> list[Resident]:
    """Without those, warmest first, that `spare` bytes more than needed allow to stay."""
    staying = set()
    for resident in reversed(leaving):
        if resident.total_bytes <= spare:
            spare -= resident.total_bytes
            staying.add(resident.model_id)
    return [each for each in leaving if each.model_id not in staying]


def _refusal(
    model_id: str,
    need: Footprint,
    room: Room,
    residents: Sequence[Resident],
    missing: int,
) -> Refused:
    busy = sum(each.total_bytes for each in residents if each.busy and not each.pinned)
    pinned = sum(each.total_bytes for each in residents if each.pinned)
    going = sum(each.total_bytes for each in residents if each.may_go)
    has = (
        f"{model_id} needs {need.words()}, and {gigabytes(max(0, room.free_bytes))} is free: "
        f"{gigabytes(room.available_bytes)} available - {gigabytes(room.reserve_bytes)} reserved "
        f"for the owner - {gigabytes(room.unsettled_bytes)} promised to models"
    )
    held = [f"{gigabytes(size)} more held by {kind} models" for size, kind in
            ((going, "idle"), (busy, "busy"), (pinned, "pinned")) if size]  # fmt: skip
    held_words = f", {', '.join(held)}" if held else ""
    if missing <= busy:
        advice = "wait until they are done"
        return Refused("overloaded", f"{has}{held_words}; {advice}")
    if need.total_bytes > room.most_bytes:
        advice = (
            f"it can never fit in this machine's {gigabytes(room.total_bytes)}: use a smaller "
            "quantisation, a shorter ctx= or fewer slots="
        )
    else:
        advice = (
            "unpin a model or close other programs, use a shorter ctx= or fewer slots=, or force "
            "it: meshctl models load MODEL --force"
        )
    return Refused("insufficient_memory", f"{has}{held_words}; {advice}")
