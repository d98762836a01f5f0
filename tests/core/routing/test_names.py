"""Words for a kind of model, and other people's spellings."""

from dataclasses import replace

import pytest

from meshd.core.routing.names import WORDS, Known, choose, size_of, spelt

CHAT = frozenset({"chat"})
TINY = Known("tiny", size_bytes=100, warm=True)
MIDDLE = Known("middle", size_bytes=500)
LARGE = Known("large", size_bytes=900)
SEES = Known("sees", capabilities=CHAT | {"vision"}, size_bytes=300)
EMBEDS = Known("embeds", capabilities=frozenset({"embedding"}), size_bytes=1_000)
SHAM = Known("sham", size_bytes=5_000, warm=True, emulated=True)
HOUSE = (LARGE, SHAM, TINY, EMBEDS, SEES, MIDDLE)


@pytest.mark.parametrize(
    ("word", "model_id"),
    [
        ("auto", "tiny"),
        ("fast", "tiny"),
        ("basic", "tiny"),
        ("micro-logic", "tiny"),
        ("cruncher", "middle"),
        ("balanced", "middle"),
        ("fat-brain", "large"),
        ("premium", "large"),
        ("media-lab", "sees"),
    ],
)
def test_a_word_stands_for_a_size(word, model_id):
    """Of the models that can do it, and not of the emulated one."""
    assert choose(word, HOUSE, CHAT) == model_id


@pytest.mark.parametrize("word", WORDS)
def test_a_word_never_chooses_what_cannot_do_it(word):
    """However small or large it is."""
    assert choose(word, HOUSE, frozenset({"embedding"})) == "embeds"


@pytest.mark.parametrize("word", WORDS)
def test_vectors_are_asked_of_models_that_make_nothing_else(word):
    """However large those are that can talk as well; where there are only such, of them, and sooner
    than of an emulated one."""
    talks = Known("talks", capabilities=CHAT | EMBEDS.capabilities, size_bytes=9_000, warm=True)
    small = Known("small", capabilities=CHAT | EMBEDS.capabilities, size_bytes=10)
    sham = Known("sham", capabilities=EMBEDS.capabilities, emulated=True)
    assert choose(word, (talks, EMBEDS, sham, small), EMBEDS.capabilities) == "embeds"
    assert choose(word, (talks, sham), EMBEDS.capabilities) == "talks"


def test_auto_takes_the_largest_where_none_is_warm():
    """Somebody has to be loaded."""
    assert choose("auto", (LARGE, MIDDLE), CHAT) == "large"


@pytest.mark.parametrize("word", ["auto", "premium"])
def test_a_word_passes_over_a_model_whose_nodes_take_no_work(word):
    """While another does; where none does, the router says why."""
    away = replace(LARGE, is_open=False, warm=True)
    assert choose(word, (away, MIDDLE), CHAT) == "middle"
    assert choose(word, (away, replace(MIDDLE, is_open=False)), CHAT) == "large"
    assert choose(word, (away, SHAM), CHAT) == "large"


@pytest.mark.parametrize("word", ["auto", "premium"])
def test_a_long_text_asks_for_a_model_with_room(word):
    """Where there is one."""
    short, roomy = replace(LARGE, context_length=1_000), replace(MIDDLE, context_length=8_000)
    chosen = [choose(word, (short, roomy), CHAT, tokens) for tokens in (999, 1_000, 9_000)]
    assert chosen == ["large", "middle", "large"]


def test_vectors_are_of_one_model_whether_it_is_there_or_not():
    """Those of another could be compared with none that are stored."""
    other = replace(EMBEDS, model_id="other", size_bytes=1)
    away = replace(EMBEDS, is_open=False)
    assert choose("premium", (away, other), EMBEDS.capabilities) == "embeds"


def test_a_house_of_sham_has_only_sham():
    """Demonstrations say `auto` too."""
    assert choose("auto", (SHAM,), CHAT) == "sham"


def test_where_no_model_can_the_router_says_what_is_missing():
    """Which helps more than "unknown model"."""
    assert choose("auto", (TINY,), frozenset({"speech"})) == "tiny"
    assert choose("auto", (), CHAT) is None


@pytest.mark.parametrize(
    ("model_id", "weights"),
    [
        ("SmolLM2-135M-Instruct", 135e6),
        ("qwen2.5:0.5b", 0.5e9),
        ("Llama-3.2-3B", 3e9),
        ("mixtral-8x7b", 0),
        ("phi", 0),
    ],
)
def test_a_size_that_nobody_tells_is_in_the_name(model_id, weights):
    """As a word of its own; what cannot be read counts as nothing."""
    assert size_of(Known(model_id)) == pytest.approx(weights * 0.6)
    assert size_of(Known(model_id, size_bytes=7)) == 7


MODELS = (
    Known("org/tiny:q4", aliases=("small",), quantisation="Q4_K_M"),
    Known("llama3:8b"),
    Known("llama3:70b"),
    Known("plain", quantisation="Q8_0"),
)


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("tiny:q4", "org/tiny:q4"),
        ("TINY", "org/tiny:q4"),
        ("org/tiny", "org/tiny:q4"),
        ("openai/org/tiny:q4", "org/tiny:q4"),
        ("ollama/small", "org/tiny:q4"),
        ("other/tiny", None),
        ("tiny:q8", None),
        ("ollama/llama3:8b", "llama3:8b"),
        ("llama3", None),
        ("llama3:latest", None),
        ("plain:q8_0", "plain"),
        ("plain:latest", "plain"),
        ("plain:q4", None),
        ("openai/plain", "plain"),
        ("plai", None),
        ("openai/", None),
        ("", None),
    ],
)
def test_a_spelling_is_taken_when_it_can_mean_one_model_only(name, model_id):
    """Provider and tag may be left out or added; a size is never guessed."""
    assert spelt(name, MODELS) == model_id
