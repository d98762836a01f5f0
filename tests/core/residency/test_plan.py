"""What may be loaded, what goes for it, what goes under pressure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.ports import MemoryLimit
from meshd.core.residency.footprint import Footprint
from meshd.core.residency.plan import (
    Admitted,
    Refused,
    Room,
    plan_expiry,
    plan_load,
    plan_shed,
    reserve_bytes,
    tightest,
    unsettled_bytes,
)
from meshd.core.residency.residents import Resident
from protocol import limits

GB = 10**9


def need(gigabytes: float) -> Footprint:
    """A model of a round size."""
    return Footprint(round(gigabytes * GB), 0, 0, 0)


def room(total: float, available: float, reserve: float = 0.0, unsettled: float = 0.0) -> Room:
    return Room(
        round(total * GB), round(available * GB), round(reserve * GB), round(unsettled * GB)
    )


def held(name: str, size: float, used: float, **state: bool) -> Resident:
    return Resident(name, round(size * GB), used, **state)


OLD, NEW = held("old", 2, 1.0), held("new", 3, 2.0)


@pytest.mark.parametrize(
    ("size", "here", "residents", "evict"),
    [
        (2, room(8, 4), [], ()),
        (4, room(8, 4), [], ()),
        (5, room(8, 4), [OLD, NEW], ("old",)),
        (8, room(9, 4), [OLD, NEW], ("old", "new")),
        (8, room(9, 4), [NEW, OLD], ("old", "new")),
        (6.5, room(8, 4), [OLD, NEW], ("new",)),
        (3, room(8, 4, unsettled=2), [OLD], ("old",)),
        (3, room(8, 4, reserve=2), [OLD], ("old",)),
        (9, room(0, 0), [OLD], ()),
    ],
)
def test_what_goes_for_a_load(
    size: float, here: Room, residents: list[Resident], evict: tuple[str, ...]
) -> None:
    """Least recently used first, and no more than needed; a machine that cannot be read is not
    judged."""
    plan = plan_load("m", need(size), here, residents)
    assert isinstance(plan, Admitted)
    assert plan.evict == evict


@pytest.mark.parametrize(
    ("size", "residents", "code"),
    [
        (9, [], "insufficient_memory"),
        (6, [], "insufficient_memory"),
        (6, [held("b", 2, 1.0, busy=True)], "overloaded"),
        (6, [held("p", 2, 1.0, pinned=True)], "insufficient_memory"),
        (7, [OLD, held("b", 1, 1.0, busy=True)], "overloaded"),
        (7, [held("p", 2, 1, pinned=True), held("b", 1, 1, busy=True)], "insufficient_memory"),
    ],
)
def test_what_is_refused(size: float, residents: list[Resident], code: str) -> None:
    """Waiting helps where busy models hold what is missing, and nowhere else."""
    refused = plan_load("m", need(size), room(8, 4), residents)
    assert isinstance(refused, Refused)
    assert refused.code == code


@pytest.mark.parametrize(("size", "behind"), [(5, ("b",)), (8, ("b",)), (8.5, ("b", "c"))])
def test_who_is_in_the_way(size: float, behind: tuple[str, ...]) -> None:
    """Of the busy models as few as are needed; never pinned ones, and idle ones just go."""
    busy = [held("c", 2, 3.0, busy=True), held("b", 4, 1.0, busy=True)]
    others = [held("i", 1, 1.0), held("p", 9, 1.0, pinned=True, busy=True)]
    refused = plan_load("m", need(size), room(20, 3), [*others, *busy])
    assert isinstance(refused, Refused)
    assert refused.behind == behind


def test_a_refusal_shows_its_arithmetic() -> None:
    """Every number that was weighed, and what to do."""
    busy = held("b", 1, 1.0, pinned=True)
    refused = plan_load("qwen", need(9), room(8, 4, reserve=0.8, unsettled=0.2), [OLD, busy])
    assert isinstance(refused, Refused)
    for words in (
        "qwen needs 9.00 GB",
        "3.00 GB is free: 4.00 GB available - 0.80 GB reserved for the owner - 0.20 GB promised",
        "2.00 GB more held by idle models",
        "1.00 GB more held by pinned models",
        "can never fit in this machine's 8.00 GB",
    ):
        assert words in refused.message
    assert len(refused.message) <= limits.DETAIL_MAX_CHARS


def test_the_owner_may_force() -> None:
    """Everything that may go goes, busy and pinned ones stay, and the load is tried."""
    residents = [OLD, NEW, held("b", 1, 0.0, busy=True), held("p", 1, 0.0, pinned=True)]
    plan = plan_load("m", need(50), room(8, 1), residents, force=True)
    assert isinstance(plan, Admitted)
    assert plan.evict == ("old", "new")


RESIDENTS = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.integers(0, 10 * GB),
        st.floats(0, 1e6),
        busy=st.booleans(),
        pinned=st.booleans(),
    ),
    max_size=8,
)


@given(st.integers(1, 20 * GB), st.integers(-5 * GB, 20 * GB), RESIDENTS)
def test_an_admitted_load_fits_and_nobody_goes_in_vain(
    size: int, free: int, residents: list[Resident]
) -> None:
    """What goes is idle; with it the sum fits; without any one of it the sum does not."""
    plan = plan_load("m", Footprint(size, 0, 0, 0), Room(32 * GB, free, 0), residents)
    sizes = {each.model_id: each.total_bytes for each in residents if each.may_go}
    going = plan.evict if isinstance(plan, Admitted) else ()
    freed = free + sum(sizes[name] for name in going)
    assert (freed >= size) == isinstance(plan, Admitted) or not going
    assert all(freed - sizes[name] < size for name in going)


def test_pressure_takes_the_coldest_idle_model() -> None:
    """One at a look, never a busy or pinned one."""
    busy, pinned = held("b", 9, 0.0, busy=True), held("p", 9, 0.0, pinned=True)
    assert plan_shed([NEW, busy, OLD, pinned]) == "old"
    assert plan_shed([busy, pinned]) is None


def test_keep_alive_sends_away_what_nobody_asked_for() -> None:
    """Not what is busy or pinned, and not what the owner named at the start."""
    residents = [
        held("idle", 1, 0.0),
        held("fresh", 1, 50.0),
        held("busy", 1, 0.0, busy=True),
        held("pinned", 1, 0.0, pinned=True),
        held("kept", 1, 0.0, kept=True),
    ]
    assert plan_expiry(residents, now=100.0, keep_alive_s=100.0) == ["idle"]


@pytest.mark.parametrize(("total", "kept"), [(8 * GB, 800_000_000), (128 * GB, 4 * 1024**3)])
def test_the_owners_share(total: int, kept: int) -> None:
    """A tenth, and no more than 4 GiB."""
    assert reserve_bytes(total) == kept


def test_what_has_settled_is_not_counted_twice() -> None:
    """The system already counts it as taken."""
    assert unsettled_bytes([(5, 2), (4, 9), (1, 0)]) == 4


BOX = "/user.slice/box"


@pytest.mark.parametrize(
    ("neighbour", "free"),
    [
        ("/system.slice/other", 2),
        ("/user.slice/boxes", 2),
        (BOX, -3),
        (f"{BOX}/inner", -3),
        ("", 2),
    ],
)
def test_promises_count_under_the_limits_that_hold_for_them(neighbour: str, free: int) -> None:
    """A daemon in a box of 4 GB on a machine with 24: who promises 5 GB outside of the box takes
    none of its room, who promises them inside takes it all."""
    limits = [MemoryLimit("", 24), MemoryLimit(BOX, 4)]
    available, unsettled = tightest(limits, [(3, 1)], {neighbour: [(6, 1)]})
    assert available - unsettled == free


def test_a_machine_can_be_fuller_than_a_box_on_it() -> None:
    """What others promised outside leaves less than the box has."""
    limits = [MemoryLimit("", 24), MemoryLimit(BOX, 4)]
    assert tightest(limits, [], {"/other": [(23, 0)]}) == (24, 23)
