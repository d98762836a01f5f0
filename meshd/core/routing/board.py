"""The offers of one model, priced, so that the best few of a thousand are found in half a
millisecond.

A record is priced when it arrives; the figures that bound a score from below are kept as columns.
For a demand the columns give every node's floor in one pass, and only nodes whose floor is near the
best score are scored in full. What a record cannot know (own dispatches, errors) only raises a
score; what only lowers it (a cached prefix) is in the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import cast

from meshd.core.routing.catalogue import Offer, Shelf
from meshd.core.routing.cost import Price
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import is_open
from meshd.core.routing.prefix import DIGEST_BYTES, CachedPrefixes, Cut

NOBODY = cast("Offer", None)
"""Stands in a place until it is priced, which is at once."""

UNPRICED = cast("Price", None)

LESSON_EVERY_S = 0.05
"""Shortest time between two prices of a record: a busy node ends a thousand answers a second, and
each of them teaches something."""

Pricer = Callable[[Offer, bool], Price]
"""Prices an offer; the flag says that its records are new."""


class Board:
    """One model's offers with their prices."""

    def __init__(self, shelf: Shelf, pricer: Pricer) -> None:
        self.shelf = shelf
        self._pricer = pricer
        self._revision = -1
        self.offers: list[Offer] = []
        self.prices: list[Price] = []
        self.digests: list[int] = []
        """Bloom filters as numbers; 0 where a node tells none."""
        self._fixed: list[float] = []
        self._ready: list[float] = []
        self._prompt: list[float] = []
        self._output: list[float] = []
        self.telling = 0
        """How many nodes tell what they have cached."""
        self._taught: set[str] = set()
        """Nodes whose prices are to follow what was learnt of them."""
        self._lesson_at = -inf

    def follow(self, now: float) -> None:
        """Price what changed on the shelf since the last call, and what was learnt."""
        if self._taught and now - self._lesson_at >= LESSON_EVERY_S:
            self._lesson_at = now
            for node_id in self._taught:
                self._learn(node_id)
            self._taught.clear()
        if self._revision == self.shelf.revision:
            return
        self._revision = self.shelf.revision
        for place, offer in enumerate(self.shelf.offers):
            if place == len(self.offers):
                self._append()
            if self.offers[place] is not offer:
                self._put(place, offer)

    def learnt(self, node_id: str) -> None:
        """Our experience with a node changed: it is priced anew before it is weighed again, or soon
        after, when that has only just been done."""
        self._taught.add(node_id)

    def _learn(self, node_id: str) -> None:
        place = self.shelf.places.get(node_id)
        if place is not None and place < len(self.offers):
            offer = self.offers[place]
            self._price(place, offer, self._pricer(offer, False))

    def _put(self, place: int, offer: Offer) -> None:
        digest = _digest(offer)
        self.telling += bool(digest) - bool(self.digests[place])
        self.offers[place] = offer
        self.digests[place] = digest
        self._price(place, offer, self._pricer(offer, True))

    def _price(self, place: int, offer: Offer, price: Price) -> None:
        self.prices[place] = price
        scale = price.scale
        self._fixed[place] = price.rtt_s + price.load_s if is_open(offer) else inf
        self._ready[place] = price.at + price.backlog_s
        self._prompt[place] = price.prompt_s * scale
        self._output[place] = price.output_s * price.batch(0) * scale

    def floors(self, demand: Demand, cached: list[float], now: float) -> list[float]:
        """The least each node could score; infinite where its records alone close it. `cached` is
        the cached share of the prompt per place, empty when nobody has any."""
        prompt, output = demand.prompt_tokens, demand.output_tokens
        floors = [
            fixed
            + (ready - now if ready > now else 0.0)
            + per_prompt * prompt
            + per_output * output
            for fixed, ready, per_prompt, per_output in zip(
                self._fixed, self._ready, self._prompt, self._output, strict=True
            )
        ]
        for place, ratio in enumerate(cached):
            if ratio:
                floors[place] -= ratio * self._prompt[place] * prompt
        return floors

    def cached(self, cuts: tuple[Cut, ...]) -> list[float]:
        """The share of the prompt that each node seems to hold, by place; empty for nobody."""
        if not self.telling or not cuts:
            return []
        masks = [_mask(cuts[0])]
        found = [0.0] * len(self.offers)
        whole = max(1, cuts[-1].size_bytes)
        for place, digest in enumerate(self.digests):
            held = 0
            while held < len(cuts) and digest & masks[held] == masks[held]:
                held += 1
                if held == len(masks) < len(cuts):
                    masks.append(_mask(cuts[held]))
            if held:
                found[place] = cuts[held - 1].size_bytes / whole
        return found

    def _append(self) -> None:
        """Room for one more."""
        self.offers.append(NOBODY)
        self.prices.append(UNPRICED)
        self.digests.append(0)
        for column in (self._fixed, self._ready, self._prompt, self._output):
            column.append(0.0)


def _digest(offer: Offer) -> int:
    told = offer.load.prefixes if offer.load is not None else b""
    return int.from_bytes(told, "little") if len(told) == DIGEST_BYTES else 0


def _mask(cut: Cut) -> int:
    """The bits that a digest must have for this cut: those of a digest that holds nothing else."""
    held = CachedPrefixes(1)
    held.served((cut,))
    return int.from_bytes(held.digest(), "little")
