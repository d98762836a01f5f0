"""Claims of meshd.engine.mlx_head: folders that are whole, and each way of not being so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.core.ports import EngineError
from meshd.engine.mlx_head import folder_title, inspect_folder

CONFIG = {
    "model_type": "llama",
    "max_position_embeddings": 8192,
    "quantization": {"group_size": 32, "bits": 4},
}


def weights(payload: bytes = b"\x00" * 8, end: int | None = None) -> bytes:
    """A safetensors file of one tensor; `end` is where its head says that it ends."""
    offsets = [0, len(payload) if end is None else end]
    tensor = {"dtype": "F16", "shape": [4], "data_offsets": offsets}
    head = json.dumps({"__metadata__": {"format": "mlx"}, "w": tensor}).encode()
    return len(head).to_bytes(8, "little") + head + payload


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole model folder."""
    made = tmp_path / "Tiny-4bit"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "model.safetensors").write_bytes(weights())
    (made / "tokenizer.json").write_text("{}")
    return made


def test_a_folder_says_what_it_is(folder):
    """Architecture, context, quantisation, and the size of the weights alone."""
    head = inspect_folder(folder)
    assert (head.architecture, head.context_length, head.quantisation) == ("llama", 8192, "4bit")
    assert head.size_bytes == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("config", "quantisation", "context"),
    [
        ({}, "", 0),
        ({"torch_dtype": "bfloat16"}, "bf16", 0),
        ({"dtype": "float16", "max_position_embeddings": 16}, "fp16", 16),
        ({"quantization": {"mode": "mxfp4", "bits": 4}}, "mxfp4", 0),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "4bit", 0),
        ({"quantization": {"bits": "four"}}, "", 0),
        ({"text_config": {"max_position_embeddings": 32}}, "", 32),
        ({"max_position_embeddings": "many"}, "", 0),
    ],
)
def test_what_a_config_does_not_say_is_nothing(folder, config, quantisation, context):
    """Configs differ with the maker; none of them is an error for what it leaves out."""
    (folder / "config.json").write_text(json.dumps(config))
    head = inspect_folder(folder)
    assert (head.quantisation, head.context_length) == (quantisation, context)


CALLING = "{% for tool in tools %}<tool_call>{{ tool }}{% endfor %}"


@pytest.mark.parametrize(
    ("name", "text", "calls_tools"),
    [
        ("tokenizer_config.json", json.dumps({"chat_template": CALLING}), True),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"template": CALLING}]}), False),
        ("tokenizer_config.json", '{"chat_template": ', False),
        ("tokenizer_config.json", "[]", False),
        ("chat_template.jinja", CALLING, True),
        ("chat_template.jinja", "plain", False),
    ],
)
def test_a_folder_says_whether_its_model_calls_tools(folder, name, text, calls_tools):
    """Before it is loaded: who asks for tools would never be the one that it is loaded for."""
    (folder / name).write_text(text)
    assert inspect_folder(folder).calls_tools == calls_tools


def test_equal_folders_have_equal_fingerprints(folder, tmp_path):
    """Wherever they lie and whatever they are called, and no other folder shares it."""
    twin = tmp_path / "elsewhere"
    twin.mkdir()
    for file in folder.iterdir():
        (twin / file.name).write_bytes(file.read_bytes())
    assert inspect_folder(folder).fingerprint == inspect_folder(twin).fingerprint
    (twin / "model.safetensors").write_bytes(weights(b"\x01" * 8))
    assert inspect_folder(folder).fingerprint != inspect_folder(twin).fingerprint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_part_is_named(folder, name):
    """With what to do about it, in one line."""
    (folder / name).unlink()
    assert_refused(folder, name.removeprefix("model").removesuffix(".json"), "download it again")


def assert_refused(folder: Path, *said: str) -> None:
    """The folder is refused in one line that says all this."""
    with pytest.raises(EngineError) as caught:
        inspect_folder(folder)
    line = str(caught.value)
    assert [word for word in said if word not in line] == []
    assert "\n" not in line


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (weights()[:-3], "bytes where its head promises"),
        (weights() + b"more", "bytes where its head promises"),
        (weights(end=3), "bytes where its head promises"),
        (weights()[:20], "not a whole safetensors file"),
        (b"abc", "not a whole safetensors file"),
        (b"", "not a whole safetensors file"),
        (b"\xff" * 64, "not a whole safetensors file"),
        ((4).to_bytes(8, "little") + b"[[[[", "the head of model.safetensors is broken"),
        ((2).to_bytes(8, "little") + b"{}", "the head of model.safetensors is broken"),
        ((7).to_bytes(8, "little") + b'{"w":1}', "the head of model.safetensors is broken"),
    ],
)
def test_weights_that_are_not_whole_are_refused(folder, raw, said):
    """A download that broke off is seen without reading the weights."""
    (folder / "model.safetensors").write_bytes(raw)
    assert_refused(folder, said)


def test_a_missing_weight_file_is_seen_by_the_names_of_the_others(folder):
    """A download that broke off between two files, each of which is whole."""
    first, second = (folder / f"model-0000{part}-of-00002.safetensors" for part in (1, 2))
    (folder / "model.safetensors").rename(first)
    assert_refused(folder, "it holds 1 of 2 weight files", "download it again")
    second.write_bytes(weights())
    assert inspect_folder(folder).size_bytes == 2 * len(weights())


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "[" * 100_000, " " * 5_000_000])
def test_a_config_that_is_no_object_is_refused(folder, text):
    """Whatever it is instead, and however long."""
    (folder / "config.json").write_text(text)
    assert_refused(folder, "config.json is not a JSON object")


def test_a_model_that_wants_to_run_python_is_refused(folder):
    """A model is data."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_file": "own.py"}))
    assert_refused(folder, "own.py", "does not do")


def test_what_is_no_folder_is_refused_with_the_way_out(folder):
    """A GGUF file has an engine of its own, and a typing error is named."""
    assert_refused(folder / "model.safetensors", "llamacpp:PATH")
    assert_refused(folder / "absent", "not found", "mlx:PATH")


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/models/Qwen3-4B-4bit", "Qwen3-4B-4bit"),
        ("/cache/hub/models--mlx-community--Qwen3-4B-4bit/snapshots/0a1b2c", "Qwen3-4B-4bit"),
        ("/cache/hub/models--org--a--b/snapshots/0a1b2c", "a--b"),
    ],
)
def test_a_folder_of_the_hub_cache_is_called_by_its_model(path, title):
    """There the folder itself is named by a hash."""
    assert folder_title(Path(path)) == title
