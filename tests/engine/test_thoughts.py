"""Claims of meshd.engine.thoughts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.thoughts import HARMONY, THINK, HarmonyReader, ThinkReader, thoughts_of

UNBEGUN = [
    ("Paris", "", "Paris"),
    ("<think>\nhm, größer…\n</think>\n\nParis\n", "hm, größer…", "Paris\n"),
    (" \n<think> a < b, </thin> \n\n c</think>P", "a < b, </thin> \n\n c", "P"),
    ("<think>\n\n</think>\n\nParis", "", "Paris"),
    ("<think></think>", "", ""),
    ("<think>a</think> <think>b</think>", "a", "<think>b</think>"),
    ("Say <think>x</think>", "", "Say <think>x</think>"),
    ("<thinking> is hard", "", "<thinking> is hard"),
    ("</think>Paris", "", "</think>Paris"),
    ("\n Paris", "", "\n Paris"),
    ("<think>hm \n</thi", "hm \n</thi", ""),
    ("<think>\n", "", ""),
    (" <thi", "", " <thi"),
]
"""What a model says; what of it is thought, and what is answer."""

BEGUN = [
    ("\nhm\n</think>\n\nParis", "hm", "Paris"),
    ("\n</think>\n\nParis", "", "Paris"),
    ("hm, Paris", "hm, Paris", ""),
]
"""The same behind a prompt that has begun the thought."""

CASES = [(*case, False) for case in UNBEGUN] + [(*case, True) for case in BEGUN]


def told(reader, pieces):
    """All that was thought, and all that was said."""
    parts = [*map(reader.feed, pieces), reader.finish()]
    thought = "".join(thought for thought, _ in parts)
    assert reader.has_thought == bool(thought)
    return thought, b"".join(answer or b"" for _, answer in parts).decode()


@pytest.mark.parametrize(("said", "thought", "answer", "is_open"), CASES)
def test_a_thought_is_told_from_the_answer(said, thought, answer, is_open):
    """It stands at the beginning; white space beside its marks is dropped, and nothing else."""
    assert told(ThinkReader(is_open=is_open), [said.encode()]) == (thought, answer)


@given(st.sampled_from(CASES), st.data())
def test_an_answer_may_be_cut_anywhere(case, data):
    """Also inside a mark, and inside a character."""
    said, thought, answer, is_open = case
    raw = said.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert told(ThinkReader(is_open=is_open), pieces) == (thought, answer)


@given(st.text("</think> \nä", max_size=40), st.booleans())
def test_every_cut_tells_the_same(said, is_open):
    """Whatever was said, byte by byte or at once."""
    raw = said.encode()
    at_once = told(ThinkReader(is_open=is_open), [raw])
    assert (
        told(ThinkReader(is_open=is_open), [raw[at : at + 1] for at in range(len(raw))]) == at_once
    )


@given(st.text("<think>/ \nab", max_size=30).filter(lambda text: text.lstrip()[:1] != "<"))
def test_an_answer_without_a_thought_is_whole(said):
    """Letter by letter."""
    assert told(ThinkReader(), [letter.encode() for letter in said]) == ("", said)


def test_what_is_certain_does_not_wait():
    """A stream goes on: only what may be a mark, or be dropped beside one, is held back."""
    reader = ThinkReader()
    pieces = [b"\n", b"<think>", b"\n", b"so", b" ", b"it</", b"b>", b"</think>", b"\n", b"P", b"s"]
    assert [reader.feed(piece) for piece in pieces] == [
        ("", None),
        ("", None),
        ("", None),
        ("so", None),
        ("", None),
        (" it", None),
        ("</b>", None),
        ("", None),
        ("", None),
        ("", b"P"),
        ("", b"s"),
    ]


def test_half_a_character_of_a_thought_is_no_text():
    """Where the answer ends there."""
    assert told(ThinkReader(is_open=True), [b"h", b"\xc3"]) == ("h", "")
    assert told(HarmonyReader(is_open=True), [b"h", b"\xc3"]) == ("h", "")


def tokens(text):
    """A text in gpt-oss's way: each mark is a token, and so is each letter between them."""
    for mark in HarmonyReader.marks:
        text = text.replace(mark.decode(), f"\0{mark.decode()}\0")
    for part in text.split("\0"):
        if part.encode() in HarmonyReader.marks:
            yield part.encode()
        else:
            yield from (bytes([byte]) for byte in part.encode())


FINAL = "<|start|>assistant<|channel|>final<|message|>"
HARMONIES = [
    ("<|channel|>analysis<|message|>Hm, ä.<|end|>" + FINAL + "Paris", "Hm, ä.", "Paris"),
    ("<|channel|>final<|message|>Paris", "", "Paris"),
    ("Paris", "", "Paris"),
    (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b"
        "<|end|>" + FINAL + "c",
        "ab",
        "c",
    ),
    ("<|channel|>commentary<|message|>Wait.<|end|>" + FINAL + "Paris", "", "Wait.Paris"),
    ("<|channel|>analysis<|message|>Hm", "Hm", ""),
    ("<|channel|>analysis<|message|>Hm<|end|><|start|>assis", "Hm", ""),
    ("<|channel|>final<|constrain|>json<|message|>{}", "", "{}"),
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|message|>b", "a", "b"),
]


@pytest.mark.parametrize(("said", "thought", "answer"), HARMONIES)
def test_the_channel_says_what_is_thought(said, thought, answer):
    """And the heads of messages are shown to nobody."""
    assert told(HarmonyReader(), tokens(said)) == (thought, answer)


def test_a_mark_that_is_spelled_out_is_text():
    """A model that writes about itself may name them, in letters."""
    said = [b"<", b"|channel|", b">", b"analysis"]
    assert told(HarmonyReader(), said) == ("", "<|channel|>analysis")


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("... '<think>\\n' ...", THINK),
        ("content.split('</think>')", THINK),
        ("<|start|>assistant<|channel|>", HARMONY),
        ("<|start|>{{ role }}", None),
        ("", None),
    ],
)
def test_a_template_shows_its_form(template, form):
    """The marks that a model was trained with stand in its template."""
    assert thoughts_of(template) is form


@pytest.mark.parametrize(
    ("form", "prompt", "thinking", "over"),
    [
        (THINK, "a\n", "a\n<think>\nhm", "a\n<think>\nhm\n</think>\n\n"),
        (THINK, "a\n<think>\n", "a\n<think>\nhm", "a\n<think>\nhm\n</think>\n\n"),
        (THINK, "a<think>", "a<think>\nhm", "a<think>\nhm\n</think>\n\n"),
        (
            HARMONY,
            "<|start|>assistant",
            "<|start|>assistant<|channel|>analysis<|message|>hm",
            f"<|start|>assistant<|channel|>analysis<|message|>hm<|end|>{FINAL}",
        ),
    ],
)
def test_a_prompt_may_hold_the_thought_of_another_machine(form, prompt, thinking, over):
    """As the model would have written it itself, up to where it was or to the answer."""
    assert form.resumed(prompt, "hm", is_over=False) == thinking
    assert form.resumed(prompt, "hm", is_over=True) == over


@pytest.mark.parametrize("reader", [ThinkReader, HarmonyReader])
def test_a_thought_that_goes_on_keeps_its_white_space(reader):
    """At its beginning alone it belongs to nobody."""
    assert told(reader(is_open=True, goes_on=True), [b" so", b" it"]) == (" so it", "")


@pytest.mark.parametrize(
    ("form", "prompt", "opens", "straight"),
    [
        (THINK, "<|assistant|>\n<think>\n", True, "<|assistant|>\n"),
        (THINK, "<|assistant|>\n<think>", True, "<|assistant|>\n"),
        (THINK, "<|assistant|>\n", False, "<|assistant|>\n"),
        (THINK, "a\n<think>\n\n</think>\n\n", False, "a\n<think>\n\n</think>\n\n"),
        (HARMONY, "a<|channel|>analysis<|message|>", True, "a<|channel|>final<|message|>"),
        (HARMONY, "<|start|>assistant", False, "<|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_a_prompt_may_begin_a_thought(form, prompt, opens, straight):
    """Where it may not, it leads straight to the answer."""
    assert form.opens(prompt) is opens
    assert form.straight(prompt) == straight
