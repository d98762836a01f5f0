"""Which conversations a machine has in its cache, told in a few bytes.

A machine that answered the last turn of a conversation reads only what is new of the next one. The
node that a request enters cannot count tokens, and must not be told what people talk about; so both
sides cut a job's prompt at the same places, and hash:

- a chat is cut after each message, a text every `BLOCK_CHARS`. The key of a piece is a hash over
  the key before it and the piece: equal keys mean equal beginnings, up to and with that piece;
- tools come first: another prompt is made with other tools. The model does not count, because a
  digest is told beside one model's load;
- a machine remembers the keys of its last few prompts, as many as it has sequences to hold them
  (`CachedPrefixes`), and tells them as a Bloom filter (`digest`): its bits say "surely not" or
  "probably". A wrong "probably" costs a detour, not an answer;
- `cached_ratio` walks a job's keys until one is missing. As keys depend on all that came before,
  a false hit after a miss does not count.

With 2,048 bits, 4 bits a key and 256 keys, 2.4 % of the unknown keys look known.

Left out: token counts (the engine counts what was really reused, in `Finish.cached_tokens`), and
the assistant's own last answer, which the next turn brings along as a message and misses by itself.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from protocol.frozen import frozen
from protocol.jobs import Job

DIGEST_BYTES = 256
"""In every load report, so small; and still 2.4 % false hits when full."""

BITS_PER_KEY = 4
"""Positions set for one key; the best number for 2,048 bits and up to 350 keys."""

KEYS_MAX = 256
"""Keys told at once; beyond them the filter says yes too often."""

BLOCK_CHARS = 512
"""Pieces of a plain text: about 140 tokens, below which reuse saves nothing worth a detour."""

PIECES_MAX = 512
"""Pieces of one prompt that are looked at: more turns than a conversation has, or a quarter of a
megabyte of text, hashed in 5 ms."""

CUTS_MAX = 64
"""Cuts kept of one prompt: the first half, which others share (a system prompt, a tool's manual),
and the last, where its own conversation goes on."""

KEY_BYTES = 8


@frozen
class Cut:
    """The end of a piece of a prompt: its key, and how much of the prompt lies before it."""

    key: bytes
    size_bytes: int


def cuts_of(job: Job) -> tuple[Cut, ...]:
    """Where a job's prompt can be continued from, shortest beginning first."""
    key = _hash(b"", job.tools)
    cuts: list[Cut] = []
    size = 0
    for piece in _pieces(job)[:PIECES_MAX]:
        key = _hash(key, piece)
        size += len(_packed(piece))
        cuts.append(Cut(key, size))
    if len(cuts) > CUTS_MAX:
        del cuts[CUTS_MAX // 2 : -CUTS_MAX // 2]
    return tuple(cuts)


class CachedPrefixes:
    """The keys of the prompts that a machine read last. `conversations`: how many it can hold."""

    def __init__(self, conversations: int) -> None:
        assert conversations > 0
        self._conversations = conversations
        self._held: OrderedDict[bytes, tuple[Cut, ...]] = OrderedDict()
        self._digest: bytes | None = b""
        """What was told last; None once something changed."""

    def served(self, cuts: Sequence[Cut]) -> None:
        """This prompt was read. It takes the place of the one that it continues, if any."""
        if not cuts:
            return
        keys = {cut.key for cut in cuts}
        for last in [last for last in self._held if last in keys]:
            del self._held[last]
        self._held[cuts[-1].key] = tuple(cuts)
        while len(self._held) > self._conversations:
            self._held.popitem(last=False)
        self._digest = None

    def clear(self) -> None:
        """The cache is empty: the model was unloaded, or its process died."""
        self._held.clear()
        self._digest = b""

    def held_ratio(self, cuts: Sequence[Cut]) -> float:
        """How much of a prompt is held, 0 to 1: surely, where `cached_ratio` can but guess."""
        keys = {cut.key for held in self._held.values() for cut in held}
        held = max((cut.size_bytes for cut in cuts if cut.key in keys), default=0)
        return held / max(1, cuts[-1].size_bytes) if cuts else 0.0

    def digest(self) -> bytes:
        """`DIGEST_BYTES` bytes; the latest prompts' keys where there are too many; empty when
        nothing is held. Cheap: it is asked for with every load report."""
        if self._digest is None:
            self._digest = self._make_digest()
        return self._digest

    def _make_digest(self) -> bytes:
        newest = [cut.key for cuts in reversed(self._held.values()) for cut in reversed(cuts)]
        bits = bytearray(DIGEST_BYTES)
        for key in newest[:KEYS_MAX]:
            for place in _places(key):
                bits[place // 8] |= 1 << place % 8
        return bytes(bits)


def cached_ratio(digest: bytes, cuts: Sequence[Cut]) -> float:
    """How much of a prompt a machine probably holds, 0 to 1. A digest of a size that this version
    does not know says nothing."""
    if len(digest) != DIGEST_BYTES or not cuts:
        return 0.0
    held = 0
    for cut in cuts:
        if not all(digest[place // 8] >> place % 8 & 1 for place in _places(cut.key)):
            break
        held = cut.size_bytes
    return held / max(1, cuts[-1].size_bytes)


def _pieces(job: Job) -> Sequence[Any]:
    if job.kind == "embedding":
        return ()
    if job.prompt is not None:
        ends = [*range(0, len(job.prompt), BLOCK_CHARS), len(job.prompt)]
        return [job.prompt[begin:end] for begin, end in pairwise(ends)]
    return job.messages


def _hash(before: bytes, piece: Any) -> bytes:
    return blake2b(before + _packed(piece), digest_size=KEY_BYTES).digest()


def _packed(piece: Any) -> bytes:
    """The same bytes for the same piece on every machine, whatever the order of its fields."""
    return json.dumps(piece, sort_keys=True, separators=(",", ":")).encode()


def _places(key: bytes) -> list[int]:
    bits = DIGEST_BYTES * 8
    return [int.from_bytes(key[at : at + 2], "little") % bits for at in range(0, KEY_BYTES, 2)]
