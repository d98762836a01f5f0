"""Which models are in memory: what may be loaded, what goes for it, and what goes under pressure.

What is free is the smaller truth of two witnesses. The machine says what is available now; but a
model that is still loading has not taken its pages yet, and weights that are mapped from a file
look available until they are needed. So of every reservation on this machine (this daemon's and
any other's) the part that does not show yet is subtracted:

    free = available - reserve - sum(reserved - settled)

`settled` is what a worker process holds for itself alone, as the system counts it. The reserve
belongs to the owner's own programs. Where a container or a unit has a limit of its own, each limit
is a sum of its own, over the promises of the daemons under it, and the least is what is free.

The rules of eviction:

- never a busy model, never a pinned one, never one that is still loading;
- least recently used first, and no more than needed: what turns out to be too much is kept;
- nothing is evicted for a load that will be refused all the same;
- a model that could never fit is `insufficient_memory`: asking again is useless. One that would fit
  if others were not busy or pinned is `overloaded` when waiting can help, else the first. Who waits
  then, and who gives way, `turns` says;
- the owner may force: then everything that may go goes, and the load is tried whatever the sum is.

Under critical pressure one idle model goes at each look, the coldest first, pinned ones never: the
next look sees what it brought. Keep-alive sends away what nobody asked for in a long time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshd.core.ports import MemoryLimit
from meshd.core.residency.footprint import Footprint, gigabytes
from meshd.core.residency.offload import Card, Split, plan_offload
from meshd.core.residency.residents import Resident, coldest_first, needed
from protocol.frozen import frozen

RESERVE_RATIO = 0.10
"""Of the machine's memory, kept for its owner's programs when nothing else is said."""

RESERVE_MAX_BYTES = 4 * 1024**3
"""Of that: more is not needed on a machine with 64 GB."""

KEEP_ALIVE_S = 30 * 60.0
"""A model that was loaded because somebody asked goes when nobody asked for half an hour."""


@frozen
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


@frozen
class Admitted:
    """Load it so, once these are gone; in this order."""

    split: Split
    evict: tuple[str, ...] = ()


@frozen
class Refused:
    """It cannot be loaded now. `code` is one of protocol.jobs.FAILURES."""

    code: str
    message: str
    behind: tuple[str, ...] = ()
    """The busy models that would have to be done first."""
    busy: tuple[str, ...] = ()
    """All the busy ones that may go when they are done."""


def reserve_bytes(total_bytes: int) -> int:
    """The owner's share of a machine when no setting says it."""
    return min(round(total_bytes * RESERVE_RATIO), RESERVE_MAX_BYTES)


def unsettled_bytes(promised: Iterable[tuple[int, int]]) -> int:
    """Of (reserved, settled) pairs, what does not show yet."""
    return sum(max(0, reserved - settled) for reserved, settled in promised)


def tightest(
    limits: Iterable[MemoryLimit],
    own: Iterable[tuple[int, int]],
    others: Mapping[str, Iterable[tuple[int, int]]],
) -> tuple[int, int]:
    """Of the memory limits around a daemon the one that leaves it least: what is available under
    it, and what of that is promised and does not show yet. Bytes.

    `own` are this daemon's (reserved, settled) pairs, which count under every limit; `others` are
    those of other daemons by their control group, which count where they are under it too."""
    mine = unsettled_bytes(own)
    theirs = {group: unsettled_bytes(promised) for group, promised in others.items()}
    sums = []
    for limit in limits:
        beside = [size for group, size in theirs.items() if _is_under(group, limit.group)]
        sums.append((limit.available_bytes, mine + sum(beside)))
    return min(sums, key=lambda each: each[0] - each[1])


def _is_under(group: str, bound: str) -> bool:
    """The whole machine's bound is the empty one."""
    return not bound or f"{group}/".startswith(f"{bound}/")


def plan_load(
    model_id: str,
    need: Footprint,
    room: Room,
    residents: Sequence[Resident],
    *,
    force: bool = False,
    layers: int = 0,
    cards: Sequence[Card] = (),
) -> Admitted | Refused:
    """May a model that takes `need` be loaded beside `residents`, and what must go for it? It has
    so many `layers` (0: unknown) to be divided among `cards`."""
    split, off_cards = plan_offload(need, layers, cards, residents)
    if room.total_bytes <= 0:
        return Admitted(split, off_cards)
    leaving: list[Resident] = []
    missing = split.host.total_bytes - room.free_bytes
    missing -= sum(each.total_bytes for each in residents if each.model_id in off_cards)
    for resident in coldest_first(each for each in residents if each.model_id not in off_cards):
        if missing <= 0:
            break
        leaving.append(resident)
        missing -= resident.total_bytes
    if missing > 0 and not force:
        return _refusal(model_id, split.host, room, residents, missing)
    also = needed(leaving, -missing, lambda each: each.total_bytes)
    return Admitted(split, (*off_cards, *(each.model_id for each in also)))


def plan_shed(residents: Sequence[Resident]) -> str | None:
    """The model to give up while pressure is critical; None when none may go."""
    idle = coldest_first(residents)
    return idle[0].model_id if idle else None


def plan_expiry(
    residents: Sequence[Resident], now: float, keep_alive_s: float = KEEP_ALIVE_S
) -> list[str]:
    """Models that nobody asked for in `keep_alive_s`."""
    return [
        each.model_id
        for each in residents
        if each.may_go and not each.kept and now - each.last_used_s >= keep_alive_s
    ]


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
        behind = _in_the_way(residents, missing)
        all_busy = tuple(each.model_id for each in residents if each.busy and not each.pinned)
        why = f"{has}{held_words}; wait until they are done"
        return Refused("overloaded", why, behind, all_busy)
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


def _in_the_way(residents: Sequence[Resident], missing: int) -> tuple[str, ...]:
    """Of the busy models those whose place would be enough: the largest first, so that few have to
    give way, and the same ones at every look."""
    going: list[str] = []
    busy = (each for each in residents if each.busy and not each.pinned)
    for resident in sorted(busy, key=lambda each: (-each.total_bytes, each.model_id)):
        if missing <= 0:
            break
        going.append(resident.model_id)
        missing -= resident.total_bytes
    return tuple(going)
