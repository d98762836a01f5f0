"""How much of a model goes onto graphics cards that have memory of their own.

A card's memory is a second room. What lies in it is read many times faster; what finds no place
there is read by the processor at every token. llama.cpp divides a model by layers, so:

    layers    of the model's, and one more for its head, as many as there is room for
    on cards  their part of weights and KV cache, and what prefill computes with
    on host   the other layers and theirs, prefill as well while there are any, the worker, and
              HOST_BYTES for the driver's side

What is free on all cards, less CARD_RESERVE_BYTES on each, is one room: llama.cpp fills them in
proportion. A model that would fit if idle ones made place gets their place, coldest first, as in
the machine's own memory (`plan`); one that is larger than all cards gets all that may go.

A chip that shares the machine's memory (Apple Silicon, Strix Halo) is no second room: everything is
counted as the machine's, once, and all layers go to the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from meshd.core.residency.footprint import Footprint, gigabytes
from meshd.core.residency.residents import Resident, coldest_first, needed
from protocol.frozen import frozen

ALL_LAYERS = -1
"""llama.cpp's own word, for whatever chip there is."""

CARD_RESERVE_BYTES = 768 * 1024**2
"""Left free on each card, for a desktop that draws with it and for what a driver keeps of its own
in each process. An estimate: no real card was at hand."""

HOST_BYTES = 256 * 1024**2
"""What a driver takes of the machine's memory in a process that uses a card. An estimate too."""


@frozen
class Card:
    """One graphics card with memory of its own, at one moment."""

    name: str
    total_bytes: int
    free_bytes: int


@frozen
class Split:
    """Where a model's parts go."""

    layers: int
    """On cards; ALL_LAYERS where there is no second room."""
    of_layers: int
    """The model's own, and its head."""
    host: Footprint
    """What it takes of the machine's memory."""
    card_bytes: int = 0

    def words(self) -> str:
        """For the owner; empty where there is no card."""
        if self.layers == ALL_LAYERS:
            return ""
        where = f"{self.layers} of {self.of_layers} layers on the graphics card"
        return f"{where} ({gigabytes(self.card_bytes)})"


def plan_offload(
    need: Footprint, layers: int, cards: Sequence[Card], residents: Sequence[Resident]
) -> tuple[Split, tuple[str, ...]]:
    """How a model of so many layers (0: unknown) is divided, and which residents leave the cards
    for it, coldest first."""
    if not cards:
        return Split(ALL_LAYERS, layers + 1, need), ()
    room = sum(max(0, card.free_bytes - CARD_RESERVE_BYTES) for card in cards)
    leaving: list[Resident] = []
    missing = _on_cards(need, layers + 1, layers + 1) - room
    for resident in coldest_first(each for each in residents if each.card_bytes):
        if missing <= 0:
            break
        leaving.append(resident)
        missing -= resident.card_bytes
    going = needed(leaving, -missing, lambda each: each.card_bytes)
    room += sum(each.card_bytes for each in going)
    return _split(need, layers + 1, room), tuple(each.model_id for each in going)


def _split(need: Footprint, units: int, room_bytes: int) -> Split:
    """The most of `units` equal parts that `room_bytes` of cards hold."""
    part = need.weights_bytes + need.kv_bytes
    count = (room_bytes - need.prefill_bytes) * units // part if part else units
    count = max(0, min(units, count))
    if not count:
        return Split(0, units, need)
    rest = units - count
    host = replace(
        need,
        weights_bytes=need.weights_bytes * rest // units,
        kv_bytes=need.kv_bytes * rest // units,
        prefill_bytes=need.prefill_bytes if rest else 0,
        runtime_bytes=need.runtime_bytes + HOST_BYTES,
    )
    return Split(count, units, host, _on_cards(need, count, units))


def _on_cards(need: Footprint, count: int, units: int) -> int:
    """Bytes of cards that `count` of `units` parts take, rounded up."""
    return -(-(need.weights_bytes + need.kv_bytes) * count // units) + need.prefill_bytes
