"""Claims of meshd.engine.gguf."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.ports import EngineError
from meshd.engine.bundled import bundled_gguf
from meshd.engine.gguf import inspect
from tests.engine import modelfiles

U32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


PAIRS = [
    pair("tokenizer.tokens", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("bc")),
    pair("tokenizer.scores", ARRAY, struct.pack("<IQ", 6, 2) + bytes(8)),
    pair("general.architecture", STRING, text("llama")),
    pair("general.name", STRING, text("Tiny")),
    pair("llama.context_length", U32, struct.pack("<I", 2048)),
    pair("general.file_type", U32, struct.pack("<I", 15)),
]


def gguf(pairs=PAIRS, version=3, count=None) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", version, 0, len(pairs) if count is None else count)
    return head + b"".join(pairs)


@pytest.fixture
def write(tmp_path):
    """Write a model file and give its path."""

    def written(content: bytes):
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return written


def test_the_head_of_a_file_tells_what_it_is(write):
    """Name, architecture, context length and quantisation, wherever in the head they stand."""
    head = inspect(write(gguf()))
    assert (head.architecture, head.name, head.context_length) == ("llama", "Tiny", 2048)
    assert head.quantisation == "Q4_K_M"
    assert head.size_bytes == len(gguf())


def test_the_bundled_model_is_what_it_claims_to_be():
    """A real file: SmolLM2 with a context of 8192 tokens, 98 MB."""
    head = inspect(bundled_gguf())
    assert (head.architecture, head.context_length, head.quantisation) == ("llama", 8192, "Q4_1")


def test_what_a_file_does_not_say_is_empty(write):
    """Nothing is made up."""
    head = inspect(write(gguf([])))
    assert (head.architecture, head.context_length, head.quantisation) == ("", 0, "")


def test_equal_files_have_equal_fingerprints_and_others_do_not(write):
    """The same fingerprint means the same token ids."""
    one = inspect(write(gguf())).fingerprint
    again = inspect(write(gguf())).fingerprint
    other = inspect(write(gguf() + b"x")).fingerprint
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found an end in the middle"),
        (b"PK\x03\x04 a zip file", "does not begin with GGUF"),
        (gguf()[:60], "found an end in the middle"),
        (gguf(version=99), "GGUF version 99"),
        (gguf(count=1_000_000), "1000000 key-value pairs"),
        (gguf([pair("k", 77, b"")]), "value type 77"),
        (gguf([pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1))]), "array of value type 9"),
        (gguf([pair("k", STRING, struct.pack("<Q", 2**60))]), "too long"),
        (gguf([pair("k", ARRAY, struct.pack("<IQ", 10, 2**60))]), "too long"),
        (gguf([pair("k", ARRAY, struct.pack("<IQQ", STRING, 2, 2**64 - 1))]), "too long"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(write, content, said):
    """The owner learns what is wrong with the file and what to do."""
    with pytest.raises(EngineError) as caught:
        inspect(write(content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    """The path is in the message."""
    with pytest.raises(EngineError, match=r"not found: .*absent\.gguf"):
        inspect(tmp_path / "absent.gguf")


def test_a_folder_is_not_a_model(tmp_path):
    """What the system says is passed on."""
    with pytest.raises(EngineError, match="cannot be read"):
        inspect(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, garbage):
    """No content makes the reader do anything else."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(gguf([], count=3) + garbage)
    with suppress(EngineError):
        assert inspect(path).size_bytes == path.stat().st_size


def test_the_bundled_models_shape_is_read_whole():
    """30 layers of 576 numbers, 3 of 9 heads with keys of 64: what its memory depends on."""
    shape = inspect(bundled_gguf()).shape
    assert (shape.layers, shape.width, shape.kv_heads) == (30, 576, 90)
    assert (shape.key_length, shape.value_length, shape.vocabulary) == (64, 64, 49_152)


def test_heads_that_differ_by_layer_are_summed(tmp_path):
    """Hybrid models have layers without a cache."""
    said = {"llama_block_count": 4, "llama_attention.head_count_kv": [8, 0, 0, 8]}
    shape = inspect(modelfiles.write(tmp_path / "m.gguf", **said)).shape
    assert shape.kv_heads == 16


@pytest.mark.parametrize(("kind", "packed"), [(5, struct.pack("<2i", -9, 4)), (6, b"\xff" * 8)])
def test_heads_that_are_no_count_are_none(write, kind, packed):
    """Less than nothing, and what is no number, makes no model smaller than its weights."""
    heads = pair("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ", kind, 2) + packed)
    assert inspect(write(gguf([*PAIRS, heads]))).shape.kv_heads in {0, 4}


SSM = {"conv_kernel": 4, "inner_size": 64, "state_size": 16, "group_count": 2}


def recurrent(architecture: str, **said: int) -> dict[str, object]:
    """The head of a hybrid model of eight layers, as Qwen3.5 writes it."""
    said = {"block_count": 8, "embedding_length": 64, "attention.head_count_kv": 2} | said
    said |= {f"ssm.{key}": value for key, value in SSM.items()}
    own = {f"{architecture}_{key}": value for key, value in said.items()}
    return {"general_architecture": architecture, **own}


@pytest.mark.parametrize(
    ("said", "kv_heads", "recurrent_layers"),
    [
        (recurrent("qwen35", full_attention_interval=4), 4, 6),
        (recurrent("qwen35", full_attention_interval=2), 8, 4),
        (recurrent("qwen3next"), 4, 6),
        (recurrent("qwen35moe", block_count=9, nextn_predict_layers=1), 4, 6),
        (recurrent("falcon-h1"), 16, 8),
        (recurrent("granitehybrid", **{"attention.head_count_kv": [0, 2] * 4}), 8, 4),
    ],
)
def test_only_layers_that_attend_have_a_cache_and_the_others_a_state(
    tmp_path, said, kv_heads, recurrent_layers
):
    """As llama.cpp counts: for the first of these, 8192 tokens and one conversation it says
    `KV buffer size = 4.00 MiB` with keys of 32, and `RS buffer size = 0.03 MiB`."""
    shape = inspect(modelfiles.write(tmp_path / "m.gguf", **said)).shape
    assert shape.kv_heads == kv_heads
    assert shape.state_bytes == recurrent_layers * 4 * (3 * (64 + 2 * 2 * 16) + 16 * 64)


def test_a_state_that_nobody_could_hold_is_a_number_all_the_same(tmp_path):
    """A hostile head cannot make one that the cache of heads could not keep."""
    said = {f"qwen35_{key}": 2**31 - 1 for key in ("block_count", "ssm.inner_size")}
    said |= {"general_architecture": "qwen35", "qwen35_ssm.state_size": 2**31 - 1}
    assert inspect(modelfiles.write(tmp_path / "m.gguf", **said)).shape.state_bytes == 2**40


def test_the_template_behind_the_vocabulary_is_found(tmp_path):
    """However long the vocabulary: it is hopped over, a block at a time."""
    said = {
        "tokenizer_ggml.tokens": [f"token {number}" * 9 for number in range(20_000)],
        "tokenizer_chat_template": "{{ messages }}",
    }
    head = inspect(modelfiles.write(tmp_path / "m.gguf", **said))
    assert head.template == "{{ messages }}"
    assert head.shape.vocabulary == 20_000
