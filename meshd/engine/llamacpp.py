"""llama.cpp through its C API: one model, one context, many sequences. Worker process only.

The low-level API is used because the high-level one of llama-cpp-python holds one sequence per
context. The batch is allocated once and filled in place; per pass, Python writes a few integers
and makes one call, in which the interpreter lock is free.

Choices:

- every sequence has its own part of the KV cache (`kv_unified` off): llama.cpp attends faster, and
  one long conversation cannot take another's room. `context_length` is per sequence;
- the default context is the model's own up to `CONTEXT_DEFAULT_TOKENS`, because the cache of all
  sequences is allocated at once: a model made for 128k tokens would otherwise take the machine;
- sampling defaults and order are llama.cpp's: penalties, top-k 40, top-p 0.95, min-p 0.05,
  temperature 0.8. Temperature 0 is greedy. Presence and frequency penalties look at the answer's
  last `PENALTY_TOKENS` tokens;
- a model that makes vectors only has no sequences, and no context but those of its readers;
- llama.cpp's errors are kept, a few lines, to explain a failure; nothing of its log is printed.
"""

from __future__ import annotations

import ctypes
import math
import os
import random
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from meshd.core.residency.offload import ALL_LAYERS
from meshd.engine import logits
from meshd.engine.blocks import blocks_of
from meshd.engine.llama_embedding import ROWS, LlamaReader, pooling_of
from meshd.engine.scheduler import Row
from meshd.engine.template import ChatTemplate
from protocol.jobs import Sampling

CONTEXT_DEFAULT_TOKENS = 4_096
"""Tokens per sequence unless asked otherwise: four sequences of an 8B model take 2 GB of cache."""

BATCH_MAX_TOKENS = 768
"""Tokens in one pass: the largest piece of prompts (512) and one token for each of 256 slots."""

PENALTY_TOKENS = 64
"""How far back penalties look; llama.cpp's own default."""

SEED_RANGE = 2**32 - 1
"""Seeds are taken modulo this: the value above means "random" to llama.cpp."""

ERRORS_MAX = 20
"""Last errors of llama.cpp: it words one failure three or four times over."""

LOG_ERROR = 4
"""GGML_LOG_LEVEL_ERROR of ggml.h."""

Sampler = Any
"""A llama.cpp sampler chain: an opaque pointer, freed with `free_sampler`."""


class LlamaError(Exception):
    """llama.cpp refused; the text is for the owner."""


class LlamaModel:
    """A loaded model and its one context. Not for use by two threads at once."""

    def __init__(
        self, path: Path, *, context: int, slots: int, threads: int, layers: int = ALL_LAYERS
    ) -> None:
        """`context` is in tokens per sequence; 0 chooses. `layers` go to graphics cards. Raises
        LlamaError."""
        self._errors: deque[str] = deque(maxlen=ERRORS_MAX)
        self._log_callback = llama.llama_log_callback(self._keep_log)
        llama.llama_log_set(self._log_callback, ctypes.c_void_p())
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = layers
        self._model = llama.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LlamaError(f"llama.cpp cannot load {path}: {self._why()}")
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(llama.llama_vocab_n_tokens(self._vocab))
        self._has_words = llama.llama_vocab_type(self._vocab) == llama.LLAMA_VOCAB_TYPE_BPE
        """Its texts are cut into words first, for which they must come in blocks."""
        own = int(llama.llama_model_n_ctx_train(self._model))
        self.context_length = context or min(own, CONTEXT_DEFAULT_TOKENS)
        self._threads = threads
        self._pooling = pooling_of(self._model)
        if self.makes_text:
            self._context = self._open_context(slots, self._threads)
            self._memory = llama.llama_get_memory(self._context)
        else:
            self.context_length = min(self.context_length, own)
        self._batch = llama.llama_batch_init(BATCH_MAX_TOKENS, 0, 1)
        self._pieces: dict[int, bytes] = {}
        """At most one entry for each token of the vocabulary."""
        self._marks: dict[int, bytes] = {}
        """The same with control tokens as their names."""
        self._ends: list[int] | None = None
        self._guidance: Any = None
        self.template = self._make_template()

    @property
    def makes_text(self) -> bool:
        """False: it makes vectors of texts, and nothing else."""
        return self._pooling == int(ROWS)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`. Control tokens written out in it count as such, and a model that
        wants a beginning-of-text token gets exactly one; one that makes vectors only gets all that
        its texts stand between."""
        ids = self._ids(text, control=True, framed=not self.makes_text and not self._has_words)
        if llama.llama_vocab_get_add_bos(self._vocab):
            bos = llama.llama_vocab_bos(self._vocab)
            if ids[:1] != [bos]:
                ids.insert(0, bos)
        if not self.makes_text and self._has_words and llama.llama_vocab_get_add_eos(self._vocab):
            ids.append(llama.llama_vocab_eos(self._vocab))
        return ids

    def continuation(self, text: str) -> list[int]:
        """Token ids of text that follows other text: nothing is put in front."""
        return self._ids(text, control=False)

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; control tokens stand for nothing."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._piece(token, special=False)
        return known

    def marked_piece(self, token: int) -> bytes:
        """As `piece`, but control tokens stand for their names: some mark thoughts, or calls."""
        known = self._marks.get(token)
        if known is None:
            known = self._marks[token] = self._piece(token, special=True)
        return known

    def is_end(self, token: int) -> bool:
        """Does this token end an answer?"""
        return bool(llama.llama_vocab_is_eog(self._vocab, token))

    def run(self, rows: Sequence[Row]) -> list[int]:
        """One pass. For each row that wants output, in order, the index to sample at.

        Raises LlamaError; the sequences' memory is undefined then.
        """
        batch = self._batch
        outputs = []
        at = 0
        for row in rows:
            position = row.position
            for token in row.tokens:
                batch.token[at] = token
                batch.pos[at] = position
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = row.slot
                batch.logits[at] = 0
                at += 1
                position += 1
            if row.wants_output:
                batch.logits[at - 1] = 1
                outputs.append(at - 1)
        batch.n_tokens = at
        status = llama.llama_decode(self._context, batch)
        if status != 0:
            raise LlamaError(f"llama_decode returned {status}: {self._why()}")
        return outputs

    def trim(self, slot: int, length: int) -> bool:
        """Let the slot's sequence keep its first `length` tokens. False: it keeps none, because
        this kind of model cannot forget a part."""
        if llama.llama_memory_seq_rm(self._memory, slot, length, -1):
            return True
        llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def copy(self, source: int, slot: int, length: int) -> bool:
        """Let `slot` hold the first `length` tokens of `source`, in place of what it held. False:
        it holds none, as with `trim`.

        llama.cpp copies a sequence whole, so this costs as much as reading its cache once.
        """
        llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
        llama.llama_memory_seq_cp(self._memory, source, slot, -1, -1)
        return self.trim(slot, length)

    def clear(self) -> None:
        """Every sequence holds nothing."""
        llama.llama_memory_clear(self._memory, True)

    def sampler(
        self, sampling: Sampling, carried: Sequence[int] = (), *, ignore_end: bool = False
    ) -> Sampler:
        """A sampler chain for one answer that begins with `carried`, which counts for penalties;
        `ignore_end` forbids the tokens that end one."""
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        bias = [(int(token), value) for token, value in sampling.logit_bias]
        if ignore_end:
            bias += [(token, -math.inf) for token in self._end_tokens()]
        for link in (*self._bias_links(bias), *self._links(sampling)):
            llama.llama_sampler_chain_add(chain, link)
        for token in carried:
            llama.llama_sampler_accept(chain, token)
        return chain

    def sample(self, sampler: Sampler, index: int) -> int:
        """Choose the next token after the output at `index` of the last pass."""
        return int(llama.llama_sampler_sample(sampler, self._context, index))

    def forbid(self, index: int, allowed: bytes) -> None:
        """Let `sample` choose at `index` only tokens whose bit in `allowed` is set."""
        logits.forbid(self._logits(index), allowed)

    def logprobs(self, index: int) -> logits.Row:
        """The model's own log-probabilities at `index`. Ask before `forbid`."""
        return logits.log_softmax(self._logits(index))

    def describe(self, logprobs: logits.Row, token: int, top: int) -> dict[str, Any]:
        """OpenAI's logprob object for the token that was chosen."""
        return logits.describe(logprobs, token, top, self.piece)

    def guidance(self) -> Any:
        """The vocabulary as llguidance reads it; made at the first use, in about a second."""
        if self._guidance is None:
            from llguidance import LLTokenizer

            tokenize = ctypes.cast(llama._lib.llama_tokenize, ctypes.c_void_p).value
            self._guidance = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
                tokens=[self._guided_piece(token) for token in range(self.vocabulary_size)],
                vocab_ptr=self._vocab,
                tokenize_fptr=tokenize,
                eos_token=self._end_tokens(),
                slices=None,
            )
        return self._guidance

    def text_reader(self, longest: int) -> LlamaReader:
        """For texts of at most `longest` tokens. Raises EmbeddingError."""
        return LlamaReader(self._model, longest, self._threads, self._pooling)

    def free_sampler(self, sampler: Sampler) -> None:
        """Give a sampler's memory back."""
        llama.llama_sampler_free(sampler)

    def _ids(self, text: str, *, control: bool, framed: bool = False) -> list[int]:
        """`framed`: with what llama.cpp puts around a text."""
        ids: list[int] = []
        for block in blocks_of(text) if self._has_words else (text,):
            raw = block.encode()
            room = len(raw) + 8
            tokens = (llama.llama_token * room)()
            count = llama.llama_tokenize(self._vocab, raw, len(raw), tokens, room, framed, control)
            ids += tokens[:count]
        return ids

    def _logits(self, index: int) -> logits.Row:
        """llama.cpp's own memory, until the next pass: what is written here, `sample` reads."""
        row = llama.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(row, (self.vocabulary_size,))

    def _open_context(self, slots: int, threads: int) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = self.context_length * slots
        params.n_seq_max = slots
        params.n_batch = params.n_ubatch = BATCH_MAX_TOKENS
        params.n_outputs_max = slots
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = False
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            llama.llama_model_free(self._model)
            raise LlamaError(
                f"llama.cpp cannot make a context of {slots} x {self.context_length} tokens "
                f"({self._why()}); give the engine a smaller ctx= or fewer slots="
            )
        return context

    def _end_tokens(self) -> list[int]:
        if self._ends is None:
            self._ends = [token for token in range(self.vocabulary_size) if self.is_end(token)]
        return self._ends

    def _bias_links(self, bias: Sequence[tuple[int, float]]) -> list[Any]:
        if not bias:
            return []
        entries = (llama.llama_logit_bias * len(bias))()
        for entry, (token, value) in zip(entries, bias, strict=True):
            entry.token, entry.bias = token, value
        return [llama.llama_sampler_init_logit_bias(self.vocabulary_size, len(bias), entries)]

    def _links(self, sampling: Sampling) -> list[Any]:
        links = []
        repeat = sampling.repeat_penalty or 1.0
        frequency, presence = sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0
        if (repeat, frequency, presence) != (1.0, 0.0, 0.0):
            links.append(
                llama.llama_sampler_init_penalties(
                    self.vocabulary_size, PENALTY_TOKENS, repeat, frequency, presence
                )
            )
        temperature = _default(sampling.temperature, 0.8)
        if temperature == 0.0:
            return [*links, llama.llama_sampler_init_greedy()]
        seed = sampling.seed if sampling.seed is not None else random.SystemRandom().getrandbits(32)
        return [
            *links,
            llama.llama_sampler_init_top_k(_default(sampling.top_k, 40)),
            llama.llama_sampler_init_top_p(_default(sampling.top_p, 0.95), 1),
            llama.llama_sampler_init_min_p(_default(sampling.min_p, 0.05), 1),
            llama.llama_sampler_init_temp(temperature),
            llama.llama_sampler_init_dist(seed % SEED_RANGE),
        ]

    def _make_template(self) -> ChatTemplate:
        own = llama.llama_model_chat_template(self._model, None)
        tokens = {
            name: self._piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""
            for name, token in (
                ("bos_token", llama.llama_vocab_bos(self._vocab)),
                ("eos_token", llama.llama_vocab_eos(self._vocab)),
            )
        }
        return ChatTemplate(own.decode("utf-8", "replace") if own else None, render_chat, tokens)

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = 256
        buffer = ctypes.create_string_buffer(room)
        size = llama.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
        if size < 0:
            room = -size
            buffer = ctypes.create_string_buffer(room)
            size = llama.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
        return buffer.raw[:size]

    def _guided_piece(self, token: int) -> bytes:
        """llguidance's own convention (its `llamacpp` module, which uses a call that llama.cpp has
        since renamed): what is not plain text begins with a byte that no text holds."""
        piece = self._piece(token, special=True)
        attributes = llama.llama_vocab_get_attr(self._vocab, token)
        is_mark = piece.startswith(b"<") and piece.endswith(b">")
        is_special = attributes & llama.LLAMA_TOKEN_ATTR_CONTROL or (
            attributes & llama.LLAMA_TOKEN_ATTR_USER_DEFINED and is_mark
        )
        return b"\xff" + piece if is_special else piece

    def _keep_log(self, level: int, text: bytes, _user_data: Any) -> None:
        if level == LOG_ERROR and text.strip():
            self._errors.append(text.decode("utf-8", "replace").strip())

    def _why(self) -> str:
        """The first thing that went wrong: what follows only says that it did."""
        why = self._errors[0][:400] if self._errors else "it gives no reason"
        self._errors.clear()
        return why


def open_model(path: Path, *, layers: int, **how: int) -> LlamaModel:
    """The model, with half of its layers on graphics cards whenever more turn out not to fit:
    another program may have taken the memory meanwhile. Raises LlamaError."""
    while True:
        try:
            return LlamaModel(path, layers=layers, **how)
        except LlamaError:
            if layers <= 0:
                raise
            layers //= 2


def render_chat(template: bytes, turns: Sequence[tuple[bytes, bytes]]) -> str | None:
    """llama.cpp's own rendering of a conversation; None for a template it does not know."""
    chat = (llama.llama_chat_message * len(turns))()
    for message, (role, content) in zip(chat, turns, strict=True):
        message.role, message.content = role, content
    room = 256 + sum(2 * len(content) + 64 for _, content in turns)
    buffer = ctypes.create_string_buffer(room)
    size = llama.llama_chat_apply_template(template, chat, len(turns), True, buffer, room)
    if size > room:
        buffer = ctypes.create_string_buffer(size)
        size = llama.llama_chat_apply_template(template, chat, len(turns), True, buffer, size)
    return buffer.raw[:size].decode("utf-8", "replace") if size >= 0 else None


def _default(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
