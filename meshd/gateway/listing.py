"""Every model of every node, merged by id, for `/v1/models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.core.routing.catalogue import Catalogue
from meshd.core.routing.gates import is_second_hand


def merged_models(catalogue: Catalogue, created: int) -> Sequence[Mapping[str, Any]]:
    """See `meshd.core.ports.Gateway.models`. `created` is Unix seconds."""
    merged = []
    for model_id, offers in sorted(catalogue.models().items()):
        known = [offer.model for offer in offers]
        merged.append(
            {
                "id": model_id,
                "created": created,
                "nodes": sorted(offer.member.name for offer in offers),
                "context_length": max(model.context_length for model in known),
                "capabilities": sorted({word for m in known for word in m.capabilities}),
                "quantisation": next((m.quantisation for m in known if m.quantisation), ""),
                "aliases": sorted({alias for m in known for alias in m.aliases}),
                "warm": any(offer.load is not None and offer.load.warm for offer in offers),
                "emulated": all(model.emulated for model in known),
                "size_bytes": max(model.size_bytes for model in known),
                "second_hand": all(is_second_hand(model) for model in known),
            }
        )
    return merged
