"""What a model takes of a machine's memory, known before it is loaded.

A model that does not fit takes the machine down with it, and finds out too late: weights are mapped
lazily, the cache grows into its pages, and the first long prompt needs the most. So the sum is made
beforehand, from the head of the file, and is an upper bound:

    weights   the size of the file: every page is touched by the first token
    KV cache  tokens x KV heads of all layers x (key + value length) x 2 bytes, for all slots at
              once: each slot owns its whole context, so that no long conversation takes another's;
              and what recurrent layers remember of each conversation, however long it is
    prefill   what one pass computes with: a pass's tokens x (the widest layer's intermediates +
              two masks over one context) x 4 bytes, and the logits of each slot; attention scores
              are never all there at once (flash attention, llama.cpp's default)
    runtime   the worker process itself: interpreter, libraries, tokenizer tables

Layers with a sliding window count with their full context, because llama.cpp allocates it so
(`swa_full`). A file that does not say its shape is taken at its size and a half.

What of this lies on a graphics card with memory of its own, `offload` says.
"""

from __future__ import annotations

from protocol.frozen import frozen

KV_BYTES = 2
"""One number of the cache: f16."""

PASS_TOKENS = 768
"""Tokens of one pass: what the worker's batch holds."""

COMPUTE_BYTES = 4
"""One intermediate number: f32."""

INTERMEDIATES = 6
"""Copies of a layer's width alive at once in a pass: input, residual, query, key, value, output."""

MASKS = 2
"""Of attention, as f32 and as what the kernel takes."""

RUNTIME_BYTES = 64 * 1024**2
"""A worker with its libraries and without a model: 45 MB measured, and room for the vocabulary."""

UNKNOWN_RATIO = 0.5
"""Of the file's size, for cache and prefill of a file that does not say its shape."""

CONTEXT_STEPS = (32_768, 16_384, 8_192, 4_096)
"""Contexts offered when nobody asked for one, longest first: coding agents begin with prompts of
10,000 to 20,000 tokens, and 4,096 is a long chat."""

CONTEXT_SHARE_RATIO = 0.25
"""Of the memory that a machine can give to models, for one model's cache, when nobody asked for a
context: the second model should still find room."""


@frozen
class ModelShape:
    """The numbers that memory depends on. All 0: unknown."""

    layers: int = 0
    width: int = 0
    """Numbers in a token's vector between layers."""
    heads: int = 1
    kv_heads: int = 0
    """Of all layers together."""
    key_length: int = 0
    value_length: int = 0
    feed_forward: int = 0
    vocabulary: int = 0
    state_bytes: int = 0
    """What recurrent layers remember of one conversation."""

    @property
    def is_known(self) -> bool:
        """Enough is known for the sum."""
        return self.layers > 0 and self.width > 0

    @property
    def kv_bytes_per_token(self) -> int:
        """Of the cache, for one token of one conversation."""
        return self.kv_heads * (self.key_length + self.value_length) * KV_BYTES

    def cache_bytes(self, context: int, slots: int) -> int:
        """Of `slots` conversations with room for `context` tokens each."""
        return slots * (context * self.kv_bytes_per_token + self.state_bytes)


UNKNOWN_SHAPE = ModelShape()


@frozen
class Footprint:
    """Bytes of memory that a model takes while it is loaded, by what they are for."""

    weights_bytes: int
    kv_bytes: int
    prefill_bytes: int
    runtime_bytes: int = RUNTIME_BYTES

    @property
    def total_bytes(self) -> int:
        """All of it: what is reserved before loading."""
        return self.weights_bytes + self.kv_bytes + self.prefill_bytes + self.runtime_bytes

    def words(self) -> str:
        """The sum, for a person."""
        return (
            f"{gigabytes(self.total_bytes)} ({gigabytes(self.weights_bytes)} weights + "
            f"{gigabytes(self.kv_bytes)} KV cache + {gigabytes(self.prefill_bytes)} prefill + "
            f"{gigabytes(self.runtime_bytes)} runtime)"
        )


def footprint(
    size_bytes: int,
    shape: ModelShape,
    context: int,
    slots: int,
    *,
    pass_tokens: int = PASS_TOKENS,
    kept_max_bytes: int = 0,
) -> Footprint:
    """What a model takes with `slots` conversations of `context` tokens each, where a pass reads
    `pass_tokens`, and as many ended conversations are kept beside the running ones, in at most
    `kept_max_bytes`."""
    if not shape.is_known:
        return Footprint(size_bytes, 0, round(size_bytes * UNKNOWN_RATIO))
    per_token = INTERMEDIATES * shape.width + 2 * shape.feed_forward + MASKS * context
    prefill = (pass_tokens * per_token + slots * shape.vocabulary) * COMPUTE_BYTES
    kv = shape.cache_bytes(context, slots)
    return Footprint(size_bytes, kv + min(kv, kept_max_bytes), prefill)


def choose_context(own: int, shape: ModelShape, slots: int, memory_bytes: int) -> int:
    """Tokens of context for each slot when nobody asked: the longest step that the model was made
    for and whose cache takes at most CONTEXT_SHARE_RATIO of `memory_bytes`; the shortest step on
    a machine too small for any. `own` is the model's context length, 0 when unknown."""
    longest = own or CONTEXT_STEPS[-1]
    share = memory_bytes * CONTEXT_SHARE_RATIO
    for step in CONTEXT_STEPS:
        context = min(step, longest)
        if shape.cache_bytes(context, slots) <= share:
            return context
    return min(CONTEXT_STEPS[-1], longest)


def gigabytes(size_bytes: int) -> str:
    """A size as people say it: two digits behind the point below 10 GB, one above."""
    size = size_bytes / 1e9
    return f"{size:.2f} GB" if abs(size) < 10 else f"{size:.1f} GB"
