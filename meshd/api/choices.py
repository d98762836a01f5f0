"""Several choices of one request, printed as one answer.

`n` above 1, and several prompts in one body, are several jobs (`Asked.others`), each answered by
whichever node is best for it. `meshd.api.fanout` runs them and marks what comes with the number of
its choice; here each choice keeps an encoder or a builder of its own, and what is said once for all
of them (usage, the last word) is said when the last one is done.

Usage counts a prompt once, however many answers it got, and every token that was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from meshd.api.dialect import SseEncoder, notice
from meshd.api.errors import from_failure
from meshd.api.writing import INCOMPLETE
from meshd.core.ports import Batch
from protocol.frozen import frozen
from protocol.jobs import Failure, Finish


@frozen
class Part:
    """A batch of choice number `index`, counted from 0."""

    index: int
    batch: Batch


class ChoiceStream(Protocol):
    """An encoder that can leave the last word to somebody else."""

    ended: bool

    def encode(self, batch: Batch) -> bytes: ...

    def closing(self, finish: Finish) -> bytes:
        """Usage, where it was asked for, and the last word."""
        ...


class ChoiceAnswer(Protocol):
    """A builder whose choice can stand beside others."""

    finish: Finish | None

    def add(self, batch: Batch) -> None: ...

    def choice(self) -> dict[str, Any]:
        """The entry of `choices`."""
        ...

    def printed(self, choices: list[dict[str, Any]], finish: Finish) -> bytes:
        """The whole answer around `choices`."""
        ...


class SeveralStreams(SseEncoder):
    """The encoders of all choices, as one. `per_prompt` choices belong to each prompt."""

    def __init__(self, streams: Sequence[ChoiceStream], per_prompt: int) -> None:
        self._streams = streams
        self._per_prompt = per_prompt
        self._finishes: dict[int, Finish] = {}
        self.ended = False

    def encode(self, batch: Sequence[Any]) -> bytes:
        """The bytes of a batch of `Part`s, or of one Failure that ends them all."""
        parts = []
        for part in batch:
            if self.ended:
                break
            if type(part) is Part:
                parts.append(self._part(part))
            elif type(part) is Failure:
                self.ended = True
                parts.append(self._streams[0].encode([part]))
            else:
                parts.append(notice(part))
        return b"".join(parts)

    def _part(self, part: Part) -> bytes:
        stream = self._streams[part.index]
        if stream.ended:
            return b""
        data = stream.encode(part.batch)
        last = part.batch[-1]
        if type(last) is Failure:
            self.ended = True
        elif type(last) is Finish:
            self._finishes[part.index] = last
            if len(self._finishes) == len(self._streams):
                self.ended = True
                data += stream.closing(total(self._finishes, self._per_prompt))
        return data


class SeveralAnswers:
    """The builders of all choices, as one."""

    def __init__(self, answers: Sequence[ChoiceAnswer], per_prompt: int) -> None:
        self._answers = answers
        self._per_prompt = per_prompt

    def add(self, batch: Sequence[Any]) -> None:
        """Take in a batch of `Part`s. Raises ApiError when it holds a failure."""
        for part in batch:
            if type(part) is Part:
                self._answers[part.index].add(part.batch)
            elif type(part) is Failure:
                raise from_failure(part)

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError unless every choice has finished."""
        finishes = {
            index: answer.finish
            for index, answer in enumerate(self._answers)
            if answer.finish is not None
        }
        if len(finishes) != len(self._answers):
            raise from_failure(INCOMPLETE)
        choices = [answer.choice() for answer in self._answers]
        return self._answers[0].printed(choices, total(finishes, self._per_prompt))


def total(finishes: dict[int, Finish], per_prompt: int) -> Finish:
    """One account for all choices, by their number: each prompt once, every token made."""
    firsts = [finish for index, finish in finishes.items() if index % per_prompt == 0]
    return Finish(
        "stop",
        prompt_tokens=sum([finish.prompt_tokens for finish in firsts]),
        completion_tokens=sum([finish.completion_tokens for finish in finishes.values()]),
        cached_tokens=sum([finish.cached_tokens for finish in firsts]),
    )
