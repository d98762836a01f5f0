"""What a client has been given of an answer, and how another node can go on from exactly there.

A machine that dies in the middle of an answer leaves a client with some text. The same weights,
given the same prompt and the same tokens, say the same next token: so where the next node has the
same file, it is given the very token ids, and with greedy sampling the client cannot tell the
answer from an uninterrupted one. Where it is only the same model by name, or where ids are not
known, the text is given instead, and read again by a tokenizer that may cut it differently.

Only what has left for the client counts. Text that an engine still held back, because it could
have become a stop sequence or half a character, is made again by the next one; so a stop sequence
that straddles the seam is found there, whole.

A thought is handed on by its text, with what was said after it, to a node that has the same file,
which goes on thinking, or speaks as one that has thought. Any other node marks its thoughts in a
way that is not known here. It gets what was said, and says the rest without having thought; where
nothing was said yet, it begins anew, and the client reads a second thought.

A tool call of which a fragment is out is made once more, by a node that has the same file, from
what stands before it; `repeat` holds back what the client has of it already.

What cannot be gone on with: text behind a call, vectors and foreign bodies; and an answer that grew
beyond SAID_MAX_BYTES, because what is kept here is kept for every stream.

The hot path only appends batches; every FOLD_BATCHES of them are folded into text and ids.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace

from meshd.core.ports import Batch, Note
from meshd.gateway.repeat import Call
from protocol import limits
from protocol.jobs import (
    Event,
    Finish,
    Job,
    Queued,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)

SEAMS_MAX = 2
"""Times one stream may be carried on: two machines of a household may go in one evening; a third
break says that the answer itself is what breaks them."""

FOLD_BATCHES = 64
"""Batches kept as they are; folding them takes 20 us."""

SAID_MAX_BYTES = limits.JOB_MAX_BYTES // 4
"""Text and ids kept of one answer: what is left of a job for a long prompt beside it."""

BYTES_PER_ID = 4

IN_CALL = "it broke off inside a tool call"
OBSTACLE = "it is not text"
TOO_LONG = "it has grown too long to be handed on"


class Said:
    """What one client has been given of one answer."""

    __slots__ = (
        "_before", "_behind", "_calls", "_carried", "_exact", "_given_up", "_ids", "_obstacle",
        "_size", "_text", "_thought", "_thoughts", "batches", "tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        """What has not been folded yet; the hot path appends here and calls `fold` when it is
        longer than FOLD_BATCHES."""
        self.tokens = 0
        """Tokens in what was folded; what has no ids counts as one token a delta."""
        self._text: list[str] = []
        self._ids = array("I")
        self._exact = True
        self._obstacle = ""
        self._size = 0
        self._thought: list[str] = []
        self._calls: dict[int, tuple[list[str], list[str]]] = {}
        """Pieces of the name and of the arguments of each."""
        self._behind = 0
        """Of the texts at hand, the first behind a call."""
        self._thoughts = 0
        """Those of the tokens that are thoughts."""
        self._carried = 0
        """Those that the node which answers now was handed."""
        self._before = 0
        """Those that were said before it."""
        self._given_up = 0
        """Those before an answer was begun anew, which has all of its length again."""

    def fold(self) -> None:
        """Take in the batches that wait."""
        if not self.batches:
            return
        texts: list[str] = []
        thoughts: list[str] = []
        loose = 0
        extend, add = self._ids.extend, texts.append
        before = len(self._ids)
        for batch in self.batches:
            for event in batch:
                if type(event) is TextDelta:
                    add(event.text)
                    if event.token_ids:
                        extend(event.token_ids)
                    elif event.text:
                        loose += 1
                elif type(event) is ReasoningDelta:
                    thoughts.append(event.text)
                else:
                    self._note(event, len(texts))
        self.batches.clear()
        more = len(self._ids) - before
        self._exact = self._exact and not (loose or thoughts)
        self._thoughts += len(thoughts)
        self.tokens += more + loose + len(thoughts)
        self._text.append("".join(texts))
        self._size += len(self._text[-1]) + BYTES_PER_ID * more
        if self._calls:
            self._look_behind(texts)
        if thoughts:
            self._thought.append("".join(thoughts))
            self._size += len(self._thought[-1])
        if self._size > SAID_MAX_BYTES and not self._obstacle:
            self._obstacle = TOO_LONG
        if self._obstacle:
            self._text.clear()
            self._thought.clear()
            self._calls.clear()
            del self._ids[:]

    def _note(self, event: Event | Note, texts: int) -> None:
        """Something that is neither said nor thought, behind so many of the texts at hand."""
        if type(event) is ToolCallDelta:
            self._behind = self._behind if self._calls else texts
            names, arguments = self._calls.setdefault(event.index, ([], []))
            names.append(event.name)
            arguments.append(event.arguments)
            self._size += len(event.name) + len(event.arguments)
        elif type(event) not in SILENT:
            self._obstacle = self._obstacle or OBSTACLE

    def _look_behind(self, texts: list[str]) -> None:
        """Whatever is said behind a call cannot stand before it."""
        if "".join(texts[self._behind :]).strip():
            self._obstacle = self._obstacle or IN_CALL
        self._behind = 0

    @property
    def begun(self) -> bool:
        """Whether the client has anything at all."""
        return bool(self.batches or self.tokens or self._text or self._calls or self._obstacle)

    @property
    def calls(self) -> Mapping[int, Call]:
        """What was given of calls, by their number; the last of them broke off."""
        self.fold()
        return {
            index: Call("".join(names), "".join(arguments))
            for index, (names, arguments) in self._calls.items()
        }

    @property
    def obstacle(self) -> str:
        """Why nobody can go on from here; empty when somebody can."""
        self.fold()
        return self._obstacle

    @property
    def exact(self) -> bool:
        """Whether the ids say all of it."""
        self.fold()
        return self._exact and not self._obstacle

    @property
    def is_only_thought(self) -> bool:
        """The answer has begun, but nothing of it was said."""
        self.fold()
        return 0 < self.tokens == self._thoughts and not (self._calls or self._obstacle)

    def is_complete(self, job: Job) -> bool:
        """Only the word that ends it is missing: it is as long as it was allowed to be."""
        self.fold()
        return job.max_tokens is not None and 0 < job.max_tokens <= self.tokens - self._given_up

    def resumed(self, job: Job, *, same_file: bool) -> Job:
        """The job of going on, by ids or by text, or of beginning anew. `same_file`: the node that
        gets it has the model file of the one that said all this."""
        self.fold()
        assert not self._obstacle
        if not self._kept(same_file=same_file):
            return job
        left = None
        if job.max_tokens is not None:
            left = max(1, job.max_tokens - (self.tokens - self._given_up))
        if same_file and self._exact:
            return replace(job, prefix_tokens=tuple(self._ids), max_tokens=left)
        thought = "".join(self._thought) if same_file else ""
        text = "".join(self._text)
        return replace(job, prefix_text=text, prefix_thought=thought, max_tokens=left)

    def handed_on(self, *, same_file: bool) -> None:
        """A node that was `resumed` so has begun to answer: of all that were asked, this one."""
        self.fold()
        self._before = self.tokens
        self._carried = self._kept(same_file=same_file)
        if not self._carried:
            self._given_up = self.tokens
            self._thought.clear()

    def _kept(self, *, same_file: bool) -> int:
        """Of the tokens, those that the next node is handed."""
        return self.tokens - (self._given_up if same_file else self._thoughts)

    def settled(self, finish: Finish) -> Finish:
        """The account of the whole answer, from that of its last part: what was carried over is
        prompt to the node that went on, and answer to the client."""
        if not self._before:
            return finish
        prompt = max(0, finish.prompt_tokens - self._carried)
        return replace(
            finish,
            prompt_tokens=prompt,
            completion_tokens=finish.completion_tokens + self._before,
            cached_tokens=min(finish.cached_tokens, prompt),
            counted=finish.counted and self._exact,
        )


SILENT: frozenset[type[object]] = frozenset({Queued, Note, Finish})
"""Events that are no part of an answer, or end it."""
