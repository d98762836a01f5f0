"""The queue of texts that become vectors, with a reader made of numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from meshd.engine.embedding import PIECE_TOKENS, EmbeddingError, EmbeddingQueue
from protocol.jobs import Event, Failure, Finish, Job, Vector
from tests.engine.test_turn import Letters

LONG = "abc" * PIECE_TOKENS


class Reader:
    """Sees 3 where a token is even and 4 where it is odd."""

    piece_tokens = PIECE_TOKENS

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.pieces: list[int] = []
        self.total = np.zeros(2)
        desk.open.append(self)

    def read(self, piece: Sequence[int]) -> NDArray[np.float64]:
        if self.desk.is_broken:
            raise EmbeddingError("it is broken")
        self.pieces.append(len(piece))
        odd = sum(token % 2 for token in piece)
        self.total = self.total + np.array([3.0 * (len(piece) - odd), 4.0 * odd])
        return self.total

    def rewind(self) -> None:
        self.pieces.append(0)
        self.total = np.zeros(2)

    def close(self) -> None:
        self.desk.open.remove(self)


class Desk:
    """A queue, and its open readers."""

    def __init__(self) -> None:
        self.open: list[Reader] = []
        self.longest: list[int] = []
        self.is_broken = False
        self.is_full = False
        self.queue = EmbeddingQueue(self.reader)

    def reader(self, longest: int) -> Reader:
        if self.is_full:
            raise EmbeddingError("no memory")
        self.longest.append(longest)
        return Reader(self)

    def ask(self, key: int, *texts: str) -> Failure | None:
        model = Letters()
        model.context_length = 10_000
        return self.queue.accept(key, Job("r", "embedding", "m", inputs=texts), model)

    def finish(self) -> list[tuple[int, list[Event]]]:
        """All steps until there is nothing to read."""
        told = []
        while self.queue:
            told.append(self.queue.step())
        return told


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_texts_are_read_in_pieces_and_the_mean_has_length_one(desk: Desk) -> None:
    """Of `ab` one token is odd and one even: 3 to 4. The reader knows the longest text."""
    assert desk.ask(1, "ab", LONG) is None
    told = desk.finish()
    vectors = [event for _, events in told for event in events if isinstance(event, Vector)]
    assert array("f", vectors[0].values).tolist() == pytest.approx([0.6, 0.8])
    assert math.hypot(*array("f", vectors[1].values)) == pytest.approx(1.0)
    assert [len(events) for _, events in told] == [1, 0, 0, 2]
    assert told[-1][1][-1] == Finish("stop", 2 + 3 * PIECE_TOKENS, 0)
    assert (desk.longest, desk.open) == ([3 * PIECE_TOKENS], [])


def test_who_waits_holds_no_memory(desk: Desk) -> None:
    """A reader is opened when its turn comes."""
    desk.ask(1, "a", "b")
    desk.ask(2, "c")
    assert desk.open == []
    desk.queue.step()
    assert len(desk.open) == 1
    assert [key for key, _ in desk.finish()] == [1, 2]


@pytest.mark.parametrize("key", [1, 2])
def test_who_leaves_gives_its_memory_back(desk: Desk, key: int) -> None:
    """Begun or waiting; the other is served."""
    desk.ask(1, "a", "b", "c")
    desk.ask(2, "d", "e")
    desk.queue.step()
    desk.queue.drop(key)
    desk.queue.drop(99)
    assert len(desk.open) == (key == 2)
    assert {each for each, _ in desk.finish()} == {3 - key}
    assert desk.open == []


@pytest.mark.parametrize("trouble", ["is_full", "is_broken"])
def test_an_engine_that_fails_costs_one_job(desk: Desk, trouble: str) -> None:
    """With its word for why; another node may do it."""
    desk.ask(1, "a")
    desk.ask(2, "b")
    setattr(desk, trouble, True)
    key, (failure,) = desk.queue.step()
    assert isinstance(failure, Failure)
    assert (key, failure.code, failure.elsewhere) == (1, "engine_failed", True)
    setattr(desk, trouble, False)
    assert [each for each, _ in desk.finish()] == [2]
    assert desk.open == []


def test_nothing_to_embed_is_refused_at_once(desk: Desk) -> None:
    """It takes no place in the queue."""
    refused = desk.ask(1)
    assert refused is not None
    assert refused.code == "bad_request"
    assert not desk.queue
