"""How a model is divided between a machine and its graphics cards, and who leaves the cards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.residency.footprint import Footprint
from meshd.core.residency.offload import (
    ALL_LAYERS,
    CARD_RESERVE_BYTES,
    HOST_BYTES,
    Card,
    Split,
    plan_offload,
)
from meshd.core.residency.plan import Admitted, Refused, Room, plan_load
from meshd.core.residency.residents import Resident

GB = 10**9
NEED = Footprint(weights_bytes=8 * GB, kv_bytes=2 * GB, prefill_bytes=GB, runtime_bytes=100)
LAYERS = 31
"""And a head: 32 parts."""


def card(free_gb: float) -> Card:
    """With so much free beyond what is left to the desktop."""
    return Card("a card", 24 * GB, round(free_gb * GB) + CARD_RESERVE_BYTES)


def on_card(name: str, size_gb: float, used: float, **state: bool) -> Resident:
    return Resident(name, 0, used, card_bytes=round(size_gb * GB), **state)


def test_without_a_card_the_whole_is_the_machines() -> None:
    """And llama.cpp gives all layers to whatever shares the machine's memory."""
    assert plan_offload(NEED, LAYERS, (), ()) == (Split(ALL_LAYERS, 32, NEED), ())
    assert Split(ALL_LAYERS, 32, NEED).words() == ""


def test_a_model_that_fits_lies_on_the_card() -> None:
    """The machine keeps the worker and the driver's side."""
    split, going = plan_offload(NEED, LAYERS, (card(11),), ())
    assert (split.layers, split.card_bytes, going) == (32, 11 * GB, ())
    assert split.host == Footprint(0, 0, 0, 100 + HOST_BYTES)
    assert split.words() == "32 of 32 layers on the graphics card (11.0 GB)"


def test_a_larger_one_is_divided() -> None:
    """As many layers as find room beside the prefill, which is then needed on both sides."""
    split, _ = plan_offload(NEED, LAYERS, (card(6),), ())
    assert split.layers == 16
    assert split.card_bytes == 6 * GB
    assert split.host == Footprint(4 * GB, GB, GB, 100 + HOST_BYTES)


def test_two_cards_are_one_room() -> None:
    """Each keeps its reserve."""
    assert plan_offload(NEED, LAYERS, (card(6), card(5)), ())[0].layers == 32
    assert plan_offload(NEED, LAYERS, (card(6), Card("full", 8 * GB, 0)), ())[0].layers == 16


@pytest.mark.parametrize("free_gb", [-1.0, 0.0, 1.2])
def test_a_full_card_takes_nothing(free_gb: float) -> None:
    """Not even one layer's room: all is as without a card, and llama.cpp is told so."""
    assert plan_offload(NEED, LAYERS, (card(free_gb),), ())[0] == Split(0, 32, NEED)


def test_a_model_of_unknown_shape_goes_as_a_whole_or_not_at_all() -> None:
    """Its parts are not known."""
    assert plan_offload(NEED, 0, (card(11),), ())[0].layers == 1
    assert plan_offload(NEED, 0, (card(10),), ())[0].layers == 0


@pytest.mark.parametrize(
    ("residents", "going", "layers"),
    [
        ([on_card("old", 6, 1.0), on_card("new", 6, 2.0)], ("old",), 32),
        ([on_card("old", 1, 1.0), on_card("new", 6, 2.0)], ("new",), 32),
        ([on_card("busy", 6, 1.0, busy=True), on_card("pinned", 6, 1.0, pinned=True)], (), 12),
        ([on_card("old", 2, 1.0)], ("old",), 19),
        ([Resident("elsewhere", 9 * GB, 0.0)], (), 12),
    ],
)
def test_idle_ones_leave_the_card_coldest_first_and_no_more_than_needed(
    residents: list[Resident], going: tuple[str, ...], layers: int
) -> None:
    """All that may go, where even that does not make room for the whole."""
    split, left = plan_offload(NEED, LAYERS, (card(5),), residents)
    assert (left, split.layers) == (going, layers)


def test_who_leaves_the_card_leaves_the_machine_too() -> None:
    """What it held there counts before anybody else must go."""
    room = Room(16 * GB, 2 * GB, GB)
    residents = [
        Resident("cold", GB, 1.0),
        Resident("old", 6 * GB, 2.0, card_bytes=2 * GB),
    ]
    plan = plan_load("m", NEED, room, residents, layers=LAYERS, cards=(card(5),))
    assert isinstance(plan, Admitted)
    assert plan.evict == ("old",)
    assert plan.split.layers == 19


def test_what_the_card_takes_the_machine_need_not_have() -> None:
    """A model larger than the machine's memory is refused without a card and runs with one."""
    room = Room(8 * GB, 6 * GB, GB)
    assert isinstance(plan_load("m", NEED, room, (), layers=LAYERS), Refused)
    assert isinstance(plan_load("m", NEED, room, (), layers=LAYERS, cards=(card(12),)), Admitted)


@given(
    weights=st.integers(1, 80 * GB),
    kv=st.integers(0, 20 * GB),
    prefill=st.integers(0, 2 * GB),
    layers=st.integers(0, 100),
    free=st.lists(st.integers(0, 48 * GB), min_size=1, max_size=4),
)
def test_no_card_is_overbooked_and_nothing_is_lost(
    weights: int, kv: int, prefill: int, layers: int, free: list[int]
) -> None:
    """Both rooms together hold the whole."""
    need = Footprint(weights, kv, prefill, 0)
    cards = [Card("c", each, each) for each in free]
    split, _ = plan_offload(need, layers, cards, ())
    assert 0 <= split.layers <= layers + 1
    assert split.card_bytes <= sum(max(0, each - CARD_RESERVE_BYTES) for each in free)
    held = split.host.weights_bytes + split.host.kv_bytes + split.card_bytes
    assert held >= weights + kv - 1
