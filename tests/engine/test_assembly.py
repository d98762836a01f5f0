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


@st.composite
def answers(draw):
    """The tokens of an answer whose characters and stop strings lie across them anyhow."""
    raw = draw(st.text("abcé😀", max_size=12)).encode()
    cuts = sorted(draw(st.sets(st.integers(0, len(raw)))) | {0, len(raw)})
    return [raw[begin:end] for begin, end in pairwise(cuts)]


@given(answers())
def test_shown_text_is_what_the_shown_tokens_stand_for(pieces):
    """So another machine can carry on from the ids and lose or repeat nothing."""
    shown, _ = play(pieces, ("abc",))
    for piece in shown[:-1]:
        assert piece.text.encode() == b"".join(pieces[token] for token in piece.token_ids)


@given(answers(), st.integers(0, 12))
def test_an_answer_goes_on_from_any_token(pieces, cut):
    """Even from one that was withheld because it ends inside a character."""
    whole, _ = play(pieces)
    shown = b"".join(pieces[:cut])
    whole_tokens = [sum(map(len, pieces[:count])) for count in range(cut + 1)]
    aligned = [at for at in whole_tokens if not unfinished_tail(shown[:at])]
    told = shown[: aligned[-1]].decode()
    assembler = Assembler((), pieces[:cut])
    rest = [assembler.push(token, piece) for token, piece in enumerate(pieces[cut:])]
    rest.append(assembler.finish())
    assert told + text_of(filter(None, rest)) == text_of(whole)


@given(answers(), st.integers(0, 12))
def test_an_answer_goes_on_elsewhere_as_if_it_had_begun_there(pieces, cut):
    """Cut at any token: what the first machine showed, and what the second adds that was given the
    tokens that were shown, is the whole answer."""
    whole, _ = play(pieces, ("abc",))
    shown, stopped = play(pieces[:cut], ("abc",))
    shown = shown if stopped else _before_the_end(pieces[:cut])
    known = sum(len(piece.token_ids) for piece in shown)
    rest = [] if stopped else _gone_on(pieces, known)
    assert text_of(shown) + text_of(rest) == text_of(whole)


def _before_the_end(pieces):
    """What was shown while the answer had not ended."""
    assembler = Assembler(("abc",))
    pushed = [assembler.push(token, piece) for token, piece in enumerate(pieces)]
    return [piece for piece in pushed if piece]


def _gone_on(pieces, known):
    """What a machine shows that was given the first `known` tokens."""
    assembler = Assembler(("abc",), pieces[:known])
    shown = []
    for token, piece in enumerate(pieces[known:]):
        shown.append(assembler.push(token, piece))
        if assembler.stopped:
            break
    else:
        shown.append(assembler.finish())
    return [piece for piece in shown if piece]


def test_a_stop_string_may_begin_on_one_machine_and_end_on_another():
    """What was shown cannot be taken back, but nothing follows."""
    assembler = Assembler(("STOP",), [b"one ", b"ST"])
    assert assembler.push(0, b"OP two") is None
    assert assembler.stopped


def test_a_character_may_begin_on_one_machine_and_end_on_another():
    """Their token was never shown, so the whole of it is shown here."""
    face = "😀".encode()
    assembler = Assembler((), [b"ok", b" " + face[:2]])
    piece = assembler.push(7, face[2:] + b"!")
    assert (piece.text, piece.token_ids) == (" 😀!", (7,))
