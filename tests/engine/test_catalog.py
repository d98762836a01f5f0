"""Claims of meshd.engine.catalog and meshd.engine.heads, on folders made for each test."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from meshd.core.ports import EngineError
from meshd.engine import catalog
from meshd.engine.catalog import Stores, entry_of, scan, usual_stores, walk
from meshd.engine.heads import FILE_NAME, HeadCache
from meshd.engine.llamacpp import render_chat
from meshd.engine.template import ChatTemplate
from meshd.engine.worker import _capabilities
from tests.engine.modelfiles import write
from tests.engine.test_worker import CODER, HERMES, LLAMA3, MISTRAL, UNKNOWN

CHAT = {"tokenizer_chat_template": "{% for m in messages %}{{ m }}{% endfor %}"}
TOOLS = {"tokenizer_chat_template": "{% if tools %}{{ tools }}{% endif %}<tool_call>"}


def found(*folders: Path, **stores: tuple[Path, ...]):
    return scan(Stores(gguf=folders, **stores), HeadCache(None))


def one(*folders: Path, **stores: tuple[Path, ...]):
    (entry,) = found(*folders, **stores)
    return entry.record


def ollama(root: Path, tag: str, weights: bytes, **said: object) -> Path:
    digest = f"{len(weights):064x}"
    write(root / "blobs" / f"sha256-{digest}", weights, **said)
    manifest = root / "manifests/registry.example/library" / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    return root


def test_a_file_becomes_a_model_with_the_names_people_use(tmp_path: Path) -> None:
    """The id without its quantisation; the file's own name is another name."""
    write(tmp_path / "Qwen3-8B-Q4_K_M.gguf", general_file_type=15, **CHAT)
    record = one(tmp_path)
    assert (record.model_id, record.quantisation) == ("qwen3-8b", "Q4_K_M")
    assert record.context_length == 2048
    assert "Qwen3-8B-Q4_K_M" in record.aliases


def test_a_repository_in_the_hub_cache_is_a_name_with_and_without_its_quantisation(
    tmp_path: Path,
) -> None:
    """The file there is a link to a blob, and links to files are followed."""
    blob = write(tmp_path / "models--org--name/blobs/abc", general_file_type=15, **CHAT)
    snapshot = tmp_path / "models--org--name/snapshots/1"
    snapshot.mkdir(parents=True)
    (snapshot / "name-Q4_K_M.gguf").symlink_to(blob)
    assert {"org/name", "org/name:Q4_K_M"} <= set(one(hub=(tmp_path,)).aliases)


def test_ollamas_models_go_by_their_ollama_names(tmp_path: Path) -> None:
    """Read from its blobs, without asking Ollama and without changing anything."""
    root = ollama(tmp_path, "smollm2/135m", b"", **CHAT)
    before = sorted(walk(root))
    assert one(ollama=(root,)).model_id == "smollm2:135m"
    assert sorted(walk(root)) == before


def test_the_same_weights_in_two_stores_are_one_model(tmp_path: Path) -> None:
    """It answers to the names of both."""
    write(tmp_path / "g/SmolLM2-135M.Q8_0.gguf", b"w" * 9, **CHAT)
    root = ollama(tmp_path / "o", "smollm2/135m", b"w" * 9, **CHAT)
    record = one(tmp_path / "g", ollama=(root,))
    assert {record.model_id, *record.aliases} >= {"smollm2-135m", "smollm2:135m"}


def test_two_quantisations_are_two_models_and_the_common_one_has_the_plain_id(
    tmp_path: Path,
) -> None:
    """Each is found under its own name, the other one under its quantisation."""
    write(tmp_path / "m-Q8_0.gguf", b"8", general_file_type=7)
    write(tmp_path / "m-Q4_K_M.gguf", b"4", general_file_type=15)
    ids = {entry.record.model_id: entry.record.quantisation for entry in found(tmp_path)}
    assert ids == {"m": "Q4_K_M", "m:q8_0": "Q8_0"}


@pytest.mark.parametrize(
    ("said", "capabilities"),
    [
        ({}, ("chat", "completion", "embedding")),
        (CHAT, ("chat", "completion", "embedding")),
        (TOOLS, ("chat", "completion", "embedding", "tools")),
        ({"general_architecture": "nomic-bert"}, ("embedding",)),
        ({"general_architecture": "eurobert"}, ("embedding",)),
        ({"llama_pooling_type": 1}, ("embedding",)),
    ],
)
def test_capabilities_are_what_the_file_says(
    tmp_path: Path, said: dict[str, object], capabilities: tuple[str, ...]
) -> None:
    """A template that shows tools makes it call, a pooling makes it embed and no more."""
    write(tmp_path / "m.gguf", **said)
    assert one(tmp_path).capabilities == capabilities


@pytest.mark.parametrize(
    ("template", "calls"),
    [
        (HERMES, True),
        (MISTRAL, True),
        (LLAMA3, True),
        (UNKNOWN, False),
        (CODER, False),
        ("<tool_call>", False),
        ("", False),
    ],
)
def test_cold_and_warm_a_model_can_do_the_same(
    tmp_path: Path, template: str, *, calls: bool
) -> None:
    """What the catalog reads in the file, and what the worker says once it is loaded."""
    said = {"tokenizer_chat_template": template} if template else {}
    write(tmp_path / "m.gguf", **said)
    loaded = SimpleNamespace(makes_text=True, template=ChatTemplate(template, render_chat, {}))
    warm = _capabilities(loaded)
    assert one(tmp_path).capabilities == warm
    assert ("tools" in warm) == calls


def test_a_projector_beside_it_makes_a_model_see(tmp_path: Path) -> None:
    """And is no model itself, whatever it is called; nor is what only ranks texts."""
    write(tmp_path / "m.gguf", **CHAT)
    write(tmp_path / "mmproj-m.gguf", general_type="mmproj")
    write(tmp_path / "other.gguf", b"o", general_type="mmproj")
    write(tmp_path / "ranks.gguf", b"r", llama_pooling_type=4)
    assert one(tmp_path).capabilities == ("chat", "completion", "embedding", "vision")


def test_a_broken_file_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are found all the same."""
    write(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"PK\x03\x04")
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    with caplog.at_level(logging.INFO):
        assert one(tmp_path).model_id == "good"
    assert "bad.gguf" in caplog.text


def test_a_loop_of_folders_is_not_walked(tmp_path: Path) -> None:
    """Linked folders are never followed."""
    write(tmp_path / "a/m.gguf")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert [file.name for file in walk(tmp_path)] == ["m.gguf"]


def test_a_link_in_a_circle_is_no_file(tmp_path: Path) -> None:
    """And costs nobody the models beside it."""
    (tmp_path / "circle.gguf").symlink_to("circle.gguf")
    (tmp_path / "m.gguf").write_bytes(b"x")
    assert [file.name for file in walk(tmp_path)] == ["m.gguf"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(40, "Loop")])
def test_a_model_where_we_may_not_look_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A service's own account and a model in somebody's home, say."""

    def refuse(path: Path, *_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(EngineError, match="cannot be read: "):
        entry_of(tmp_path / "m.gguf", HeadCache(None))


def test_a_file_that_cannot_be_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not every minute for as long as half a download lies there."""
    (tmp_path / "half.gguf").write_bytes(b"GGUF")
    with caplog.at_level(logging.INFO):
        assert [*found(tmp_path), *found(tmp_path)] == []
    assert [line.levelname for line in caplog.records if "half.gguf" in line.message] == ["INFO"]


def test_a_walk_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder named by mistake costs a bounded number of looks."""
    monkeypatch.setattr(catalog, "ENTRIES_MAX", 5)
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    assert len(list(walk(tmp_path))) == 5


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    """What was read is kept by path, size and time; here the content changes behind its back."""
    state = tmp_path / "state"
    state.mkdir()
    stores = Stores(gguf=(tmp_path / "m",))
    file = write(tmp_path / "m/x.gguf", llama_context_length=1024)
    scan(stores, HeadCache(state))
    stamp = file.stat().st_mtime_ns
    write(file, llama_context_length=2048)
    os.utime(file, ns=(stamp, stamp))
    (same,) = scan(stores, HeadCache(state))
    os.utime(file, ns=(stamp, stamp + 1))
    (fresh,) = scan(stores, HeadCache(state))
    assert (same.record.context_length, fresh.record.context_length) == (1024, 2048)


def test_what_an_older_version_remembered_is_read_anew(tmp_path: Path) -> None:
    """Format 1 took recurrent layers for layers with a cache, and told tools by a word."""
    stores = Stores(gguf=(tmp_path / "m",))
    file = write(tmp_path / "m/x.gguf", llama_context_length=1024)
    scan(stores, HeadCache(tmp_path))
    kept = json.loads((tmp_path / FILE_NAME).read_bytes())
    kept["heads"][str(file)][3] = 99
    contexts = []
    for number in (kept["format"], 1):
        (tmp_path / FILE_NAME).write_text(json.dumps(kept | {"format": number}))
        (entry,) = scan(stores, HeadCache(tmp_path))
        contexts.append(entry.record.context_length)
    assert contexts == [99, 1024]


@pytest.mark.parametrize("kept", [b"", b"{", b'{"format":99,"heads":{}}', b"[" * 5000])
def test_a_spoilt_cache_is_an_empty_one(tmp_path: Path, kept: bytes) -> None:
    """It is ours, and everything in it can be had again."""
    (tmp_path / FILE_NAME).write_bytes(kept)
    write(tmp_path / "m/x.gguf")
    assert len(scan(Stores(gguf=(tmp_path / "m",)), HeadCache(tmp_path))) == 1


def test_a_state_directory_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    """The models are found; they will be read again next time."""
    write(tmp_path / "m/x.gguf")
    heads = HeadCache(tmp_path / "absent")
    assert len(scan(Stores(gguf=(tmp_path / "m",)), heads)) == 1


def test_the_usual_places_follow_their_programs_variables() -> None:
    """Somebody who moved their models has told the program that keeps them."""
    home = Path("/h")
    plain = usual_stores({}, home, [Path("/mine")])
    assert plain.gguf[0] == Path("/mine")
    assert plain.hub == (home / ".cache/huggingface/hub",)
    moved = usual_stores({"HF_HOME": "/big/hf", "OLLAMA_MODELS": "/big/o"}, home)
    assert moved.hub == (Path("/big/hf/hub"),)
    assert moved.ollama[0] == Path("/big/o")
