"""How a model file's name becomes a model id.

Lower case, without the quantisation: people ask for `smollm2-135m-instruct`, whichever way the file
on this or that machine was squeezed. The quantisation has a field of its own in the record, and the
full file name stays as an alias.
"""

from __future__ import annotations

import re

QUANTISATION = re.compile(
    r"[-._](?:i1-|ud-)?(?:iq[1-4]_[a-z0-9_]+|q[2-8](?:_[a-z0-9_]+)?|b?f16|fp16|f32|mxfp4"
    r"|[2-8]-?bit(?:-dwq)?|dwq)$",
    re.IGNORECASE,
)
"""The endings that makers of GGUF files and of MLX folders use."""

SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def model_name(stem: str) -> str:
    """The id for a file whose name without `.gguf` is `stem`."""
    whole = SHARD.sub("", stem)
    return QUANTISATION.sub("", whole).lower() or whole.lower()
