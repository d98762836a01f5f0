"""Claims of meshd.engine.assembly."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.assembly import Assembler, unfinished_tail


def play(pieces: list[bytes], stop: tuple[str, ...] = ()):
    """Text, token ids, and whether a stop string was met, with tokens numbered from 0."""
    assembler = Assembler(stop)
    shown = []
    for token, piece in enumerate(pieces):
        shown.append(assembler.push(token, piece))
        if assembler.stopped:
            break
    else:
        shown.append(assembler.finish())
    return [piece for piece in shown if piece], assembler.stopped


def text_of(shown) -> str:
    return "".join(piece.text for piece in shown)


def test_text_passes_through_as_it_comes():
    """Without stop strings every whole token is shown at once."""
    shown, _ = play([b"Hello", b" world"])
    assert [(piece.text, piece.token_ids) for piece in shown] == [("Hello", (0,)), (" world", (1,))]


def test_a_character_across_tokens_waits_for_its_last_byte():
    """An emoji in four tokens is shown once, with all four ids."""
    shown, _ = play([bytes([byte]) for byte in "😀".encode()])
    assert [(piece.text, piece.token_ids) for piece in shown] == [("😀", (0, 1, 2, 3))]


def test_half_a_character_at_the_end_is_dropped():
    """What never became text is not shown."""
    shown, _ = play([b"ok", "😀".encode()[:2]])
    assert text_of(shown) == "ok"


def test_a_stop_string_across_tokens_is_found():
    """The text before it is shown, it and the rest are not."""
    shown, stopped = play([b"one ST", b"O", b"P two"], ("STOP",))
    assert stopped
    assert text_of(shown) == "one "


def test_a_false_start_of_a_stop_string_is_shown_after_all():
    """Held-back text is late, never lost."""
    shown, stopped = play([b"a ST", b"ART"], ("STOP",))
    assert not stopped
    assert text_of(shown) == "a START"


def test_text_leaves_only_in_whole_tokens():
    """While a token may yet belong to a stop string, none of its letters is shown."""
    assembler = Assembler(("STOP",))
    assert assembler.push(0, b"a ST") is None


def test_the_first_of_several_stop_strings_counts():
    """Whichever comes first in the text."""
    shown, _ = play([b"one two three"], ("three", "two"))
    assert text_of(shown) == "one "


def test_a_held_back_start_is_shown_when_the_answer_ends():
    """The answer really ended with those letters."""
    shown, stopped = play([b"a ST"], ("STOP",))
    assert not stopped
    assert text_of(shown) == "a ST"


def test_invalid_bytes_become_replacement_characters():
    """A model may emit anything; what is shown is text."""
    shown, _ = play([b"\xff\xfe", b"ok"])
    assert text_of(shown) == "��ok"


@given(st.text(min_size=1), st.data())
def test_any_cut_of_the_bytes_gives_the_same_text_and_ids(text, data):
    """Token borders never change what is read, and every id is shown exactly once, in order."""
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    borders = [0, *cuts, len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(borders)]
    shown, _ = play(pieces)
    assert text_of(shown) == text
    ids = [token for piece in shown for token in piece.token_ids]
    assert ids == list(range(len(ids)))


@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=3), st.data())
def test_any_cut_finds_the_same_stop(text, stop, data):
    """With overlapping letters and every way to cut, the text before the stop is the same."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    borders = [0, *cuts, len(text)]
    pieces = [text[a:b].encode() for a, b in pairwise(borders)]
    shown, stopped = play(pieces, (stop,))
    assert stopped == (stop in text)
    assert text_of(shown) == text.split(stop)[0]


@given(st.text(min_size=1, max_size=3), st.integers(0, 3))
def test_the_unfinished_tail_is_what_decoding_lacks(text, cut):
    """The bytes before the tail are whole characters."""
    raw = text.encode()[: max(0, len(text.encode()) - cut)]
    kept = raw[: len(raw) - unfinished_tail(raw)]
    assert text.startswith(kept.decode())
    assert len(raw) - len(kept) <= 3
