"""Ollama's options, formats and durations: row by row."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.fields import Fields
from meshd.api.ollama_options import (
    LOAD_OPTIONS,
    read_format,
    read_keep_alive,
    read_logprobs,
    read_options,
    read_think,
    unused_lines,
)
from protocol.jobs import Sampling

HOUR_S = 3600.0


def options(**given):
    return read_options(Fields({"options": given}))


def test_sampling_options_become_sampling():
    """The names are the same; what is not given is the engine's own default."""
    read = options(temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, seed=7, repeat_penalty=1.1)
    assert read.sampling == Sampling(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, seed=7, repeat_penalty=1.1
    )
    assert options().sampling == Sampling()


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"num_predict": 5}, "max_tokens", 5),
        ({"num_predict": 5.0}, "max_tokens", 5),
        ({"num_predict": -1}, "max_tokens", None),
        ({"num_predict": -2}, "max_tokens", None),
        ({"num_predict": 0}, "max_tokens", None),
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": ["x", "y"]}, "stop", ("x", "y")),
        ({"stop": []}, "stop", ()),
        ({"typical_p": 0.7, "mirostat": None}, "extras", {"typical_p": 0.7}),
    ],
)
def test_each_option_has_its_place(given, field, value):
    """Numbers below 1 mean no limit; options nobody knows travel on."""
    assert getattr(options(**given), field) == value


@pytest.mark.parametrize(("seed", "read"), [(-1, None), (0, 0), (3.0, 3)])
def test_a_negative_seed_is_any_seed(seed, read):
    """As in Ollama, whose default is -1."""
    assert options(seed=seed).sampling.seed == read


def test_options_that_concern_loading_are_named():
    """The model is loaded already, by and for more people than one."""
    assert options(num_ctx=8192.0, num_gpu=1, use_mmap=None).ignored == ("num_ctx", "num_gpu")
    assert options(**dict.fromkeys(LOAD_OPTIONS, 1)).extras == {}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"temperature": "hot"}, "options.temperature"),
        ({"temperature": 9}, "options.temperature"),
        ({"num_predict": 5.5}, "options.num_predict"),
        ({"stop": [1]}, "stop"),
    ],
)
def test_what_makes_no_sense_is_refused(given, param):
    """With the name of the option."""
    with pytest.raises(ApiError) as caught:
        options(**given)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, None),
        ("", None),
        ("json", {"type": "json_object"}),
        (
            {"type": "object"},
            {
                "type": "json_schema",
                "json_schema": {"name": "format", "schema": {"type": "object"}},
            },
        ),
    ],
)
def test_formats_in_openais_words(given, read):
    """One word, or a schema."""
    assert read_format(given) == read


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, {}),
        (True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("high", {"reasoning_effort": "high"}),
    ],
)
def test_thinking_in_the_words_of_templates_and_of_reasoning_models(given, read):
    """A switch, or a level."""
    assert read_think(given) == read


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (30, 30.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("5m", 300.0),
        ("1h30m", 1.5 * HOUR_S),
        ("-1s", -1.0),
        ("-1", -1.0),
        ("1.5h", 1.5 * HOUR_S),
        ("100ms", 0.1),
    ],
)
def test_durations_as_go_writes_them(given, seconds):
    """A bare number counts seconds, and `m` is a minute: the unit was once misread elsewhere."""
    assert read_keep_alive(given) == seconds


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (read_format, "yaml"),
        (read_format, 5),
        (read_think, "much"),
        (read_think, [1]),
        (read_keep_alive, "soon"),
        (read_keep_alive, ""),
        (read_keep_alive, "1" * 1000),
        (read_keep_alive, True),
    ],
)
def test_other_values_are_refused(read, value):
    """Rather than taken for something near."""
    with pytest.raises(ApiError) as caught:
        read(value)
    assert caught.value.status == 400


def test_logprobs_and_how_many_others():
    """Others need the first."""
    assert read_logprobs(Fields({"logprobs": True, "top_logprobs": 3})) == (True, 3)
    assert read_logprobs(Fields({})) == (False, 0)
    with pytest.raises(ApiError):
        read_logprobs(Fields({"top_logprobs": 3}))


def test_what_has_no_effect_is_named_in_one_line():
    """Of bounded length, whatever a client calls its fields."""
    lines = unused_lines(0.0, options(num_ctx=1), ["metadata", "x" * 10_000, "a\r\nb"])
    assert lines.startswith("x-mesh-left-out: keep_alive, num_ctx, metadata, xxx")
    assert len(lines) < 150
    assert lines.count("\r\n") == 1
    assert unused_lines(None, options(), []) == ""
