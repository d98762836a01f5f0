"""Which tokens go into the next pass over the weights: continuous batching, as pure rules.

A pass (one `llama_decode`) costs about the same for one token as for a few, because it is the
weights that are slow to read. So every pass carries one token for each answer that is being
generated, and, on top, a bounded piece of the prompts that are still being read:

- generating turns always take part: a long prompt never freezes anybody's stream, it only makes
  each of its passes longer by one `prefill_tokens` piece;
- that piece is shared equally by the prompts being read, and what a short one does not need goes
  to the others: a question of one line does not wait behind a report of a hundred pages;
- a prompt that fits into half a piece is even read alone, in a short pass, which halves the time
  to its first word. Never twice in a row, so that a flood of questions cannot hold up a report.

Each slot is one sequence of the context. It keeps what it holds when its turn ends, and the next
turn that begins with the same tokens takes over from there. A waiting turn takes the free slot with
the longest common beginning, provided that this is at least half of the prompt or half of what the
slot holds; otherwise the slot that has been idle longest, so that a shared greeting does not wipe
out somebody's long conversation. Where another slot, even a running one, holds a common beginning
that is `SHARE_MIN_TOKENS` longer, that one is copied first: two people with the same long system
prompt pay for it once. The last token of a prompt is always read again: its output is
where the answer begins.

Waiting turns start in order of arrival. Nothing here knows of sampling, text or clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from protocol.frozen import frozen

SHARE_MIN_TOKENS = 256
"""A copy moves a slot's whole cache, about a tenth of a second for an 8B model with 4,096 tokens;
reading 256 tokens takes as long on a graphics card, and ten seconds on a processor."""


@frozen
class Row:
    """A run of tokens for one slot in the next pass. `wants_output`: sample after its last one."""

    slot: int
    tokens: Sequence[int]
    position: int
    wants_output: bool


@frozen
class Placement:
    """A turn begins in a slot that must hold exactly its first `reused` tokens; where `source` is
    another slot, they are to be copied from there."""

    key: int
    slot: int
    reused: int
    source: int = -1


@dataclass(slots=True)
class _Waiting:
    key: int
    prompt: Sequence[int]
    reuse: bool


@dataclass(slots=True)
class _Slot:
    index: int
    held: list[int] = field(default_factory=list)
    key: int | None = None
    prompt: Sequence[int] = ()
    sampled: int | None = None
    idle_since: int = 0

    @property
    def unread(self) -> int:
        """Prompt tokens that have not been through the model yet."""
        return max(0, len(self.prompt) - len(self.held))


class Scheduler:
    """The slots of one context, and who waits for them."""

    def __init__(self, slots: int, prefill_tokens: int) -> None:
        assert slots > 0
        assert prefill_tokens >= slots, "every prompt must advance in every pass"
        self.prefill_tokens = prefill_tokens
        self._slots = [_Slot(index) for index in range(slots)]
        self._waiting: deque[_Waiting] = deque()
        self._clock = 0
        self._favoured = False
        """The last pass left a prompt out in favour of a short one."""

    @property
    def is_idle(self) -> bool:
        """Nobody runs and nobody waits."""
        return not self._waiting and all(slot.key is None for slot in self._slots)

    def submit(self, key: int, prompt: Sequence[int], *, reuse: bool = True) -> None:
        """A turn waits for a slot. `reuse` false reads the whole prompt anew."""
        assert prompt, "a turn needs at least one token to sample after"
        self._waiting.append(_Waiting(key, prompt, reuse))

    def place(self) -> Iterator[Placement]:
        """Start waiting turns in free slots, one at a time: the caller trims the slot to `reused`
        tokens before it takes the next, which may count on what that one holds."""
        while self._waiting:
            free = [slot for slot in self._slots if slot.key is None]
            if not free:
                return
            yield self._start(self._waiting.popleft(), free)

    def plan(self) -> list[Row]:
        """The next pass; empty when no slot has work."""
        rows = [
            Row(slot.index, (slot.sampled,), len(slot.held), wants_output=True)
            for slot in self._slots
            if slot.sampled is not None
        ]
        reading = sorted(
            (slot for slot in self._slots if slot.key is not None and slot.unread),
            key=lambda slot: slot.unread,
        )
        budget = self.prefill_tokens
        if reading and not self._favoured and 2 * reading[0].unread <= budget:
            del reading[1:]
        for place, slot in enumerate(reading):
            share = min(slot.unread, budget // (len(reading) - place))
            budget -= share
            begin = len(slot.held)
            piece = slot.prompt[begin : begin + share]
            rows.append(Row(slot.index, piece, begin, wants_output=share == slot.unread))
        return rows

    def ran(self, rows: Sequence[Row]) -> None:
        """The pass is done: the slots hold these tokens now."""
        took_part = {row.slot for row in rows}
        self._favoured = any(
            slot.key is not None and slot.unread and slot.index not in took_part
            for slot in self._slots
        )
        for row in rows:
            slot = self._slots[row.slot]
            slot.held.extend(row.tokens)
            slot.sampled = None

    def sampled(self, index: int, token: int) -> None:
        """The slot's answer goes on with `token`, which the next pass reads."""
        self._slots[index].sampled = token

    def finish(self, index: int) -> None:
        """The slot's turn is over; what it holds stays for whoever continues it."""
        self._clock += 1
        slot = self._slots[index]
        slot.key, slot.prompt, slot.sampled, slot.idle_since = None, (), None, self._clock

    def cancel(self, key: int) -> int | None:
        """Forget a turn, waiting or running; the slot it ran in, which is free now."""
        for waiting in self._waiting:
            if waiting.key == key:
                self._waiting.remove(waiting)
                return None
        for slot in self._slots:
            if slot.key == key:
                self.finish(slot.index)
                return slot.index
        return None

    def forget(self, index: int) -> None:
        """The slot's memory could not be kept: its turn, if any, starts from its first token."""
        slot = self._slots[index]
        slot.held.clear()
        slot.sampled = None

    def forget_all(self) -> None:
        """The context was cleared: no slot holds anything."""
        for slot in self._slots:
            self.forget(slot.index)

    def _start(self, waiting: _Waiting, free: Sequence[_Slot]) -> Placement:
        oldest = min(free, key=lambda slot: (bool(slot.held), slot.idle_since))
        slot, reused = oldest, 0
        if waiting.reuse:
            best = max(free, key=lambda slot: common_prefix(slot.held, waiting.prompt))
            common = common_prefix(best.held, waiting.prompt)
            if 2 * common >= min(len(best.held), len(waiting.prompt)):
                slot = best
            reused = min(common_prefix(slot.held, waiting.prompt), len(waiting.prompt) - 1)
        source = self._donor(waiting, reused) if waiting.reuse else -1
        if source >= 0:
            held = self._slots[source].held
            reused = min(common_prefix(held, waiting.prompt), len(waiting.prompt) - 1)
            slot.held[:] = held[:reused]
        del slot.held[reused:]
        slot.key, slot.prompt = waiting.key, waiting.prompt
        return Placement(waiting.key, slot.index, reused, source)

    def _donor(self, waiting: _Waiting, reused: int) -> int:
        """The slot with so much more of the prompt that copying pays; -1 when none has."""
        best = max(self._slots, key=lambda slot: common_prefix(slot.held, waiting.prompt))
        gain = common_prefix(best.held, waiting.prompt) - reused
        return best.index if gain >= SHARE_MIN_TOKENS else -1


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with. Halving with slice compares keeps long prompts cheap."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
