"""A model's thoughts, told from its answer as the bytes come.

Models that think aloud mark it, and their chat template shows which marks they were trained with.
`FORMS` says how, as data; a reader of each form stands in front of everything else that reads an
answer, so that stop strings, calls of tools and log-probabilities are the answer's alone:

    Qwen3, R1, QwQ   <think>thought</think>answer
    gpt-oss          <|channel|>analysis<|message|>thought<|end|>
                     <|start|>assistant<|channel|>final<|message|>answer

Rules of `<think>`:

- a thought stands at the very beginning, after white space at most: a later `<think>` is text;
- white space beside a mark belongs to neither side;
- a mark may be cut anywhere: what could be the beginning of one waits until it is one or is not;
- a prompt that ends in `<think>` has begun the thought; one that ends in a closed block has not;
- an answer that ends inside a thought was all thought.

Rules of gpt-oss (harmony): a mark is one control token, never spelled out. Text is a thought where
its channel is `analysis`; every other channel speaks to the asker.

An answer whose beginning or form is given (a text to go on with, a schema, a forced call) has no
thoughts: its prompt is one that leads `straight` to the answer, and nobody looks for marks in it.
One that another machine thought about has that thought in its prompt, as the model would have
written it (`resumed`), and goes on with it or behind it.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Protocol

from meshd.engine.assembly import overlap, unfinished_tail
from protocol.frozen import frozen

OPENER, CLOSER = b"<think>", b"</think>"

START, CHANNEL, MESSAGE, END = b"<|start|>", b"<|channel|>", b"<|message|>", b"<|end|>"
"""Harmony's: a message begins, its channel follows, its text follows, it is over."""


class ThoughtReader(Protocol):
    """Separates one answer's thoughts from what is said."""

    marks: ClassVar[frozenset[bytes]]
    """Where one of them is a control token, it is fed by its name."""
    has_thought: bool
    """Some thought was told."""

    def feed(self, piece: bytes) -> tuple[str, bytes | None]:
        """More thought, and more of the answer that are certain now that the bytes of one more
        token have come. None: of that token, nothing belongs to the answer yet."""
        ...

    def finish(self) -> tuple[str, bytes | None]:
        """The same, of what was held back: no more will come."""
        ...


class Place(Enum):
    """Where in an answer a reader is."""

    BEFORE = 1
    THOUGHT = 2
    BETWEEN = 3
    """Where neither speaks: behind a thought, in the head of a message."""
    ANSWER = 4


class ThinkReader:
    """A `ThoughtReader` of `<think>`."""

    marks: ClassVar[frozenset[bytes]] = frozenset({OPENER, CLOSER})

    def __init__(self, *, is_open: bool = False, goes_on: bool = False) -> None:
        """`is_open`: the mark that opens a thought is in the prompt already. `goes_on`: so is some
        of the thought, and what follows may begin with white space of its own."""
        self.has_thought = goes_on
        self._place = Place.THOUGHT if is_open else Place.BEFORE
        self._held = b""

    def feed(self, piece: bytes) -> tuple[str, bytes | None]:
        """As `ThoughtReader` says."""
        self._held += piece
        if self._place is Place.BEFORE:
            self._begin()
        thought = self._think() if self._place is Place.THOUGHT else ""
        if self._place is Place.BETWEEN:
            self._held = self._held.lstrip()
            self._place = Place.ANSWER if self._held else Place.BETWEEN
        if self._place is not Place.ANSWER:
            return thought, None
        answer, self._held = self._held, b""
        return thought, answer

    def finish(self) -> tuple[str, bytes | None]:
        """As `ThoughtReader` says."""
        held, self._held = self._held, b""
        if self._place is not Place.THOUGHT:
            return "", held or None
        return self._tell(held[: len(held) - unfinished_tail(held)]), None

    def _begin(self) -> None:
        """Is this a thought? Where that is not certain yet, it stays as it is."""
        begin = self._held.lstrip()
        if begin.startswith(OPENER):
            self._place, self._held = Place.THOUGHT, begin.removeprefix(OPENER)
        elif not OPENER.startswith(begin):
            self._place = Place.ANSWER

    def _think(self) -> str:
        """Up to the end of the thought, or to what may be that."""
        if not self.has_thought:
            self._held = self._held.lstrip()
        thought, closer, after = self._held.partition(CLOSER)
        if closer:
            self._place, self._held = Place.BETWEEN, after
            return self._tell(thought.rstrip())
        certain = thought[: len(thought) - overlap(thought, CLOSER)]
        certain = certain[: len(certain) - unfinished_tail(certain)].rstrip()
        self._held = thought[len(certain) :]
        return self._tell(certain)

    def _tell(self, thought: bytes) -> str:
        self.has_thought = self.has_thought or bool(thought)
        return thought.decode("utf-8", "replace")


class HarmonyReader:
    """A `ThoughtReader` of gpt-oss's channels."""

    marks: ClassVar[frozenset[bytes]] = frozenset({START, CHANNEL, MESSAGE, END})

    def __init__(self, *, is_open: bool = False, goes_on: bool = False) -> None:
        """`is_open`: the head of a thought is in the prompt already. `goes_on`: and some of it."""
        self.has_thought = goes_on
        self._place = Place.THOUGHT if is_open else Place.ANSWER
        self._head = b""
        self._held = b""

    def feed(self, piece: bytes) -> tuple[str, bytes | None]:
        """As `ThoughtReader` says."""
        if piece == MESSAGE:
            is_thought = self._head.rpartition(CHANNEL)[2].startswith(b"analysis")
            self._place = Place.THOUGHT if is_thought else Place.ANSWER
            self._head = self._held = b""
            return "", None
        if piece in self.marks:
            self._place = Place.BETWEEN
        if self._place is Place.BETWEEN:
            self._head += piece
            return "", None
        if self._place is Place.ANSWER:
            return "", piece
        self._held += piece
        certain = self._held[: len(self._held) - unfinished_tail(self._held)]
        self._held = self._held[len(certain) :]
        self.has_thought = self.has_thought or bool(certain)
        return certain.decode("utf-8", "replace"), None

    def finish(self) -> tuple[str, bytes | None]:
        """As `ThoughtReader` says: half a head, or half a character, is no text."""
        return "", None


@frozen
class ThoughtForm:
    """How one family marks its thoughts."""

    shown: tuple[str, ...]
    """What tells a chat template of this family: one of them stands in it."""
    opener: str
    """What a prompt ends with that has begun the thought."""
    answer: str
    """What a prompt must end with that is to lead straight to the answer."""
    gap: str
    """What stands between the opener and the thought."""
    closer: str
    """What stands between the thought and the answer."""
    reader: type[ThinkReader] | type[HarmonyReader]

    def opens(self, prompt: str) -> bool:
        """Does what follows this prompt begin inside a thought?"""
        return prompt.rstrip().endswith(self.opener)

    def straight(self, prompt: str) -> str:
        """The prompt that leads straight to the answer."""
        if self.opens(prompt):
            prompt = prompt.rstrip().removesuffix(self.opener)
        return prompt + self.answer

    def resumed(self, prompt: str, thought: str, *, is_over: bool) -> str:
        """The prompt behind which a thought is gone on with, or, where it is over, the answer."""
        opened = prompt.rstrip() if self.opens(prompt) else prompt + self.opener
        return opened + self.gap + thought + (self.closer if is_over else "")


HARMONY = ThoughtForm(
    shown=("<|channel|>",),
    opener="<|channel|>analysis<|message|>",
    answer="<|channel|>final<|message|>",
    gap="",
    closer="<|end|><|start|>assistant<|channel|>final<|message|>",
    reader=HarmonyReader,
)
THINK = ThoughtForm(
    shown=("<think>", "</think>"),
    opener="<think>",
    answer="",
    gap="\n",
    closer="\n</think>\n\n",
    reader=ThinkReader,
)
FORMS = (HARMONY, THINK)


def thoughts_of(template: str) -> ThoughtForm | None:
    """The form that a chat template shows; None for a model that does not think aloud."""
    return next((form for form in FORMS if any(mark in template for mark in form.shown)), None)
