"""How fast is a machine that nobody has measured yet? Told from what it is made of.

Engines of ours time themselves when they load a model, but a server that is adopted is never tried
without a reason, and a model on the disk has not run at all. If all of those looked alike, the
first question of an evening would go to a Raspberry Pi as readily as to the PC with the graphics
card, and once some slower machine was measured, the PC might never be asked.

Two things are known before any measurement:

- *what the machine is*: `usual_rates` of its kind, from published runs of one model (8 billion
  parameters at four bits) on machines of each kind. They are right within a factor of two or three,
  and the kinds are further apart than that.
- *how the model does elsewhere*: the same model was perhaps measured on another node. Whatever
  makes it slower or faster than that one model (its size, its experts) does so everywhere, so the
  usual rates are scaled by what the measured nodes reach of theirs.

The first answer replaces all of this by a measurement. So a machine that is taken for too fast
costs somebody one slow answer, and one that is taken for too slow is never asked while a faster one
is free, and stays what it was taken for. Therefore all are taken for faster than they probably are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from meshd.core.routing.demand import WRITTEN_KINDS
from meshd.core.routing.gates import is_second_hand
from protocol.load import CapacityRecord, ModelRecord

if TYPE_CHECKING:
    from meshd.core.routing.catalogue import Offer

AMD_APU_GFX = frozenset(
    re.findall(
        r"\w+",
        "gfx902 gfx909 gfx90c gfx1013 gfx1033 gfx1035 gfx1036 gfx1037 gfx1103 "
        "gfx1150 gfx1151 gfx1152 gfx1153",
    )
)
"""Graphics inside a processor, by gfx id: a model there may use the shared memory as well.
Product names and `rocm-smi` are wrong about these; the id is what the kernel itself goes by."""

RATE_MIN_TPS = 0.001
"""A token in a quarter of an hour: less is no measurement, and its inverse no duration."""

NEIGHBOURS_MAX = 64
"""Nodes looked at for how the model does elsewhere: a household has ten, and the median of 64 is
as good as that of a thousand."""

SCALE_MAX = 100.0
"""A model of 0.1 billion parameters against the 8 of the published runs, or one of 800 billion the
other way; beyond it a measurement is wrong."""


HOPE_RATIO = 2.0
"""How much faster than usual a machine is taken for until it was measured: usual rates are that far
off. Simulated, a card behind a server that nobody knows is found within a few requests; with 3, the
first burst sends more to the Pis."""


class Rates(NamedTuple):
    """Tokens per second."""

    prompt_tps: float
    generation_tps: float


ANY_MACHINE = Rates(400.0, 25.0)
"""Where nothing is known of a machine: between a Pi and a graphics card, so that it is tried
without being flooded."""

CARD = Rates(2_000.0, 60.0)
"""A graphics card with memory of its own: an RTX 2070 reaches 1,190/45, a 4070 for laptops
2,370/48, a 3080 3,810/112."""

STRIX_HALO = Rates(800.0, 35.0)
INSIDE_A_PROCESSOR = Rates(250.0, 16.0)
"""A Radeon 780M."""

APPLE = {
    "Ultra": Rates(900.0, 65.0),
    "Max": Rates(500.0, 45.0),  # an M1 Max: 500/46
    "Pro": Rates(350.0, 30.0),
    "": Rates(200.0, 18.0),  # an M4: 225/21
}

PROMPT_TPS_PER_CORE = 5.0
GENERATION_TPS_PER_CORE = 1.25
"""Without any of these: 4 cores of 2017 reach 22/6, 32 of a workstation 155/17, a Pi 5 25/4, an
N100 7/3. Memory sets the pace, and more cores come with more of it."""

GENERATION_CORES_MAX = 16
"""Beyond it memory gives no more."""


def usual_rates(capacity: CapacityRecord | None, model: ModelRecord) -> Rates:
    """What a machine of this kind reaches. A server that the owner gave an address of may be
    another machine, of which nothing is known, and behind a node may be any."""
    if capacity is None or not capacity.chip or _is_elsewhere(model):
        return ANY_MACHINE
    if capacity.chip.startswith("Apple"):
        return next(rates for word, rates in APPLE.items() if word in capacity.chip)
    processor = Rates(
        PROMPT_TPS_PER_CORE * max(1, capacity.cores),
        GENERATION_TPS_PER_CORE * min(max(1, capacity.cores), GENERATION_CORES_MAX),
    )
    if sum(gpu.memory_bytes for gpu in capacity.gpus) <= model.size_bytes:
        return processor
    return max((_of_graphics(gpu.name) for gpu in capacity.gpus), default=processor)


def assumed_rates(offer: Offer, neighbours: Sequence[Offer]) -> Rates:
    """For an offer that is not measured: the usual rates of its machine, scaled by what the
    `neighbours`, who offer the same model, reach of theirs."""
    usual = usual_rates(offer.member.capacity, offer.model)
    known = [
        (usual_rates(each.member.capacity, each.model), each.load)
        for each in neighbours[:NEIGHBOURS_MAX]
        if each.load is not None and is_measured(each)
    ]
    prompt = _scale(load.prompt_tps / rates.prompt_tps for rates, load in known)
    generation = _scale(load.generation_tps / rates.generation_tps for rates, load in known)
    return Rates(
        HOPE_RATIO * prompt * usual.prompt_tps, HOPE_RATIO * generation * usual.generation_tps
    )


def is_measured(offer: Offer) -> bool:
    """Whether the node knows how fast it decodes the model; where that never writes, how fast it
    reads."""
    load = offer.load
    if load is None or WRITTEN_KINDS.isdisjoint(offer.model.capabilities):
        return load is not None and load.prompt_tps > RATE_MIN_TPS
    return load.generation_tps > RATE_MIN_TPS


def busy_beside(offer: Offer) -> int:
    """How many other models the same machine is running, by the node's record. Servers at other
    addresses are other machines, each of them one."""
    record, capacity, model = offer.member.load, offer.member.capacity, offer.model
    assert record is not None
    assert capacity is not None
    busy = {each.model_id for each in record.models if each.in_flight} - {model.model_id}
    if not busy:
        return 0
    others = [each for each in capacity.models if each.model_id in busy]
    return sum(
        each.engine == model.engine or not (_is_elsewhere(each) or _is_elsewhere(model))
        for each in others
    )


def _scale(ratios: Iterable[float]) -> float:
    told = [ratio for ratio in ratios if ratio > 0.0]
    return min(max(median(told), 1.0 / SCALE_MAX), SCALE_MAX) if told else 1.0


def _of_graphics(name: str) -> Rates:
    gfx = name.rpartition(" ")[2]
    if gfx == "gfx1151":
        return STRIX_HALO
    return INSIDE_A_PROCESSOR if gfx in AMD_APU_GFX else CARD


def _is_elsewhere(model: ModelRecord) -> bool:
    """Whether it runs on another machine, as far as the name of its engine tells."""
    has_address = "://" in model.engine
    is_here = re.search(r"//(127\.|localhost\b|\[::1\])", model.engine) is not None
    return (has_address and not is_here) or is_second_hand(model)
