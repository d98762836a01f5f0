"""The sequences that MLX works on at once, and what is kept of those that ended. Worker only.

mlx-lm's `BatchGenerator` does the batching: each step gives one token of every answer, and reads on
top a bounded piece of the prompts that are new, so a long prompt never freezes anybody's stream.
That piece is shared equally by the prompts being read.

mlx-lm runs one step ahead: the token that a step returns has been through the model already. So
what a sequence holds is exactly what was told of it, and its keys and values can be kept the moment
it ends, for the next turn of the conversation (mlx-lm's `LRUPromptCache`). The last token of a
prompt is always read again: its output is where the answer begins.

When an answer ends is the `Turn`'s business: mlx-lm's own stop rules are left off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import LRUPromptCache, can_trim_prompt_cache, trim_prompt_cache

from meshd.engine.mlx_head import KEPT_MAX_BYTES
from meshd.engine.mlx_model import MlxModel
from meshd.engine.mlx_sampling import Processor, Sampler

FRAGMENT_TOKENS = 8
"""The least of one prompt that is read in a step: less would be all overhead."""

ENDLESS = 2**31
"""mlx-lm's own bound of an answer, which must never be the one that is met."""

FAMILY = ""
"""LRUPromptCache keeps several models apart; here is one."""


class MlxBatch:
    """Sequences by number, from `start` to `stop`."""

    def __init__(self, model: MlxModel, slots: int, prefill_tokens: int) -> None:
        """At most `slots` sequences are started at a time; the caller counts."""
        self._model = model
        self._slots = slots
        self.prefill_tokens = prefill_tokens
        """Tokens of prompts read in one step."""
        self._generator: Any = self._open()
        self._kept = LRUPromptCache(max_size=slots, max_bytes=KEPT_MAX_BYTES)
        self._reading: set[int] = set()

    def start(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        processors: Sequence[Processor] = (),
        *,
        reuse: bool,
    ) -> tuple[int, int]:
        """A sequence begins with `prompt`: its number, and how many tokens need no reading."""
        held = self._held(list(prompt)) if reuse else None
        reused, cache = held or (0, None)
        (sequence,) = self._generator.insert(
            [list(prompt[reused:])],
            max_tokens=[ENDLESS],
            caches=[cache],
            all_tokens=[list(prompt[:reused])],
            samplers=[sampler],
            logits_processors=[list(processors)],
        )
        self._reading.add(sequence)
        return sequence, reused

    def step(self) -> list[tuple[int, int]]:
        """One pass over the weights: (sequence, token) of each answer under way.

        Raises RuntimeError or ValueError when MLX fails; every sequence is undefined then.
        """
        share = self.prefill_tokens // max(1, len(self._reading))
        self._generator.prefill_step_size = max(FRAGMENT_TOKENS, share)
        _, responses = self._generator.next()
        chosen = [(each.uid, int(each.token)) for each in responses]
        self._reading -= {sequence for sequence, _ in chosen}
        return chosen

    def stop(self, sequence: int) -> None:
        """The sequence ends; what it read is kept for whoever continues it."""
        self._reading.discard(sequence)
        taken = self._generator.remove([sequence], return_prompt_caches=True)
        cache, tokens = taken.get(sequence, (None, ()))
        if cache and tokens:
            mx.eval([layer.state for layer in cache])
            self._kept.insert_cache(FAMILY, list(tokens), cache)

    def clear(self) -> None:
        """Every sequence is gone, and nothing is kept."""
        self._generator.close()
        self._generator = self._open()
        self._kept = LRUPromptCache(max_size=self._slots, max_bytes=KEPT_MAX_BYTES)
        self._reading.clear()

    def _open(self) -> Any:
        return BatchGenerator(
            self._model.network,
            completion_batch_size=self._slots,
            prefill_batch_size=self._slots,
            prefill_step_size=self.prefill_tokens,
        )

    def _held(self, prompt: list[int]) -> tuple[int, list[Any]] | None:
        """The longest kept beginning of `prompt`, without its last token."""
        cache, rest = self._kept.fetch_nearest_cache(FAMILY, prompt)
        if cache is None:
            return None
        if not rest:
            if not can_trim_prompt_cache(cache):
                return None
            trim_prompt_cache(cache, 1)
        return len(prompt) - max(1, len(rest)), cache
