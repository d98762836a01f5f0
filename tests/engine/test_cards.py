"""What llama.cpp says of graphics cards, and what becomes of other answers."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.core.residency.offload import Card
from meshd.engine import cards
from meshd.engine.cards import backends, cards_of, installed_backends, read_cards, unused

pytest.importorskip("llama_cpp")


def library(folder: Path, *names: str) -> Path:
    """A folder of libraries with these names."""
    for name in names:
        (folder / name).touch()
    return folder


def test_the_folder_of_a_build_shows_what_it_computes_on(tmp_path: Path) -> None:
    """Names of libraries; a Mac's chip shares the machine's memory and is no card."""
    plain = (
        "libggml.so",
        "libggml-base.so.0",
        "libggml-cpu.so.0.25.3",
        "libllama.so",
        "libggml-metal.dylib",
    )
    assert backends(library(tmp_path, *plain)) == ()
    assert backends(library(tmp_path, "libggml-vulkan.so", "libggml-cuda.so.0")) == (
        "cuda",
        "vulkan",
    )
    assert backends(tmp_path / "nowhere") == ()


def test_a_build_for_no_card_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed for these tests: no process is started for it."""
    if installed_backends():
        pytest.skip("this llama.cpp was built for cards")
    monkeypatch.setattr(cards, "_ask", lambda: pytest.fail("it was asked"))
    assert read_cards() == ()


def test_a_card_that_lies_idle_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And how to use it."""
    assert unused(tmp_path) == ""
    (tmp_path / "nvidiactl").touch()
    assert unused(tmp_path) == ""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(cards, "_library_folder", lambda: tmp_path)
    monkeypatch.setattr(cards, "Path", lambda _dev: tmp_path)
    assert read_cards() == read_cards() == ()
    assert caplog.text.count("`make gpu`") == 1


def test_the_process_that_is_asked_answers() -> None:
    """Without a card: nothing, and no trouble."""
    if installed_backends():
        pytest.skip("this llama.cpp was built for cards")
    done = subprocess.run(
        [sys.executable, "-m", "meshd.engine.cards"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b""


def test_each_line_is_a_card() -> None:
    """Name, all of its memory, what is free."""
    said = '["NVIDIA GeForce RTX 4090", 25386352640, 24000000000]\n["", 1, 0]\n'
    first, second = cards_of(lambda: said)
    assert first == Card("NVIDIA GeForce RTX 4090", 25386352640, 24000000000)
    assert second == Card("", 1, 0)
    assert len(cards_of(lambda: said * 100)) == cards.CARDS_MAX


@pytest.mark.parametrize("said", ["no JSON", "[1]", '["a", "b", "c"]', "{}", "3"])
def test_an_answer_that_is_none_means_no_cards(said: str, caplog: pytest.LogCaptureFixture) -> None:
    """And the owner reads why."""
    with caplog.at_level(logging.WARNING):
        assert cards_of(lambda: said) == ()
    assert "did not name them" in caplog.text


def test_a_driver_that_hangs_or_dies_means_no_cards() -> None:
    """The processor is used, as before there was a card."""

    def hangs() -> str:
        raise subprocess.TimeoutExpired("cards", 30)

    def dies() -> str:
        raise subprocess.CalledProcessError(-11, "cards")

    assert cards_of(hangs) == cards_of(dies) == ()


def test_a_load_that_does_not_fit_is_tried_with_half_the_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Down to none; what is wrong without a card too is the owner's to read."""
    from meshd.engine import llamacpp

    tried: list[int] = []
    fits = 0

    def load(_path: Path, *, layers: int, **_how: int) -> str:
        tried.append(layers)
        if layers > fits:
            raise llamacpp.LlamaError("no memory")
        return "a model"

    monkeypatch.setattr(llamacpp, "LlamaModel", load)
    how = {"context": 0, "slots": 1, "threads": 0}
    assert llamacpp.open_model(Path("m"), layers=33, **how) == "a model"
    assert tried == [33, 16, 8, 4, 2, 1, 0]
    tried.clear()
    fits = -2
    with pytest.raises(llamacpp.LlamaError):
        llamacpp.open_model(Path("m"), layers=llamacpp.ALL_LAYERS, **how)
    assert tried == [llamacpp.ALL_LAYERS]
