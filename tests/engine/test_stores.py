"""Claims of meshd.engine.stores: recorded listings and manifests, no disk."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from meshd.engine.stores import gguf_models, hub_name, lmstudio_name, ollama_model, ollama_name

HEX = "74701a8c35f6c8d9a4b91f3f3497643001d63e0c7a84e085bed452548fa88d45"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": "sha256:4f659a1e86d7f5a33c389f7991e7224b7ee6ad0358b53437d54c02d2e1b1118d",
            "size": 485,
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": f"sha256:{HEX}",
                "size": 1321082688,
            },
            {
                "mediaType": "application/vnd.ollama.image.template",
                "digest": "sha256:966de95ca8a62200913e3f8bfbf84c8494536f1b94b49166851e76644e966396",
                "size": 1429,
            },
        ],
    }
)
"""As Ollama 0.5 writes it for llama3.2:1b."""
TAG = PurePosixPath("registry.example/library/llama3.2/1b")


def stems(*names: str) -> list[tuple[str, int]]:
    return [(found.stem, len(found.parts)) for found in gguf_models(Path("/m") / n for n in names)]


def test_a_gguf_file_is_a_model_and_others_are_not() -> None:
    """Whatever else lies in the folder, and however the ending is spelt."""
    assert stems("a/x.gguf", "a/y.GGUF", "a/readme.md", "a/x.gguf.part") == [("x", 1), ("y", 1)]


def test_a_split_model_is_one_model() -> None:
    """The first file is what is loaded; llama.cpp finds the others beside it."""
    names = [f"q/big-Q4_K_M-0000{part}-of-00003.gguf" for part in (3, 1, 2)]
    (found,) = gguf_models(Path("/m") / name for name in names)
    assert found.stem == "big-Q4_K_M"
    assert found.path.name == "big-Q4_K_M-00001-of-00003.gguf"
    assert len(found.parts) == 3


def test_a_split_model_with_a_part_missing_is_left_out() -> None:
    """A download that has not ended is no model yet."""
    assert stems("q/big-00001-of-00003.gguf", "q/big-00003-of-00003.gguf") == []


def test_a_projector_gives_eyes_to_its_folder_and_is_no_model() -> None:
    """Models in other folders see no better for it."""
    names = ["v/mmproj-f16.gguf", "v/eyes-Q4_0.gguf", "w/blind-Q4_0.gguf"]
    found = {each.stem: each.has_eyes for each in gguf_models(Path("/m") / n for n in names)}
    assert found == {"eyes-Q4_0": True, "blind-Q4_0": False}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            "hub/models--Qwen--Qwen3-8B-GGUF/snapshots/7c41/q.gguf",
            "Qwen/Qwen3-8B-GGUF",
        ),
        ("hub/models--a--b--c/snapshots/1/x.gguf", "a/b--c"),
        ("hub/datasets--a--b/snapshots/1/x.gguf", None),
    ],
)
def test_the_hub_cache_tells_the_repository(path: str, name: str | None) -> None:
    """Its folders hold organisation and name."""
    assert hub_name(PurePosixPath(path)) == name


def test_lm_studio_tells_publisher_and_name() -> None:
    """Three levels; a file that somebody dropped at the top has no such name."""
    root = PurePosixPath("/s")
    assert lmstudio_name(root, root / "bartowski/Qwen3-GGUF/q.gguf") == "bartowski/Qwen3-GGUF"
    assert lmstudio_name(root, root / "q.gguf") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("registry.example/library/llama3.2/1b", "llama3.2:1b"),
        ("registry.example/jane/mine/latest", "jane/mine:latest"),
        ("hf.example/org/name/Q4_K_M", "org/name:Q4_K_M"),
        ("library/llama3.2/1b", None),
    ],
)
def test_ollama_names_a_model_by_its_manifests_path(path: str, name: str | None) -> None:
    """As `ollama list` shows it."""
    assert ollama_name(PurePosixPath(path)) == name


def test_a_manifest_leads_to_the_blob() -> None:
    """To the weights, under the name that people use."""
    found = ollama_model(Path("/o"), TAG, MANIFEST)
    assert found is not None
    assert found.path == Path(f"/o/blobs/sha256-{HEX}")
    assert (found.stem, found.is_named, found.has_eyes) == ("llama3.2:1b", True, False)


def test_the_latest_tag_may_be_left_out() -> None:
    """Both spellings are names of the model."""
    found = ollama_model(Path("/o"), TAG.with_name("latest"), MANIFEST)
    assert found is not None
    assert (found.stem, found.names) == ("llama3.2", ("llama3.2:latest",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        '{"layers": 3}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model"}]}',
        MANIFEST.replace(HEX, "../../../etc/passwd"),
        MANIFEST.replace(HEX, HEX + "0"),
        "[" * 100_000,
    ],
)
def test_what_is_no_manifest_names_no_file(text: str) -> None:
    """A digest that is not one cannot lead out of the store."""
    assert ollama_model(Path("/o"), TAG, text) is None
