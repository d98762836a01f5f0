"""Claims of meshd.engine.keyring: where a key comes from, and where it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.core.ports import EngineError
from meshd.engine.factory import build
from meshd.engine.keyring import upstream_key
from meshd.engine.spec import SpecError, UpstreamSpec, parse

SECRET = "sk-very-secret"


def spec(text: str) -> UpstreamSpec:
    parsed = parse(f"openai:https://models.example{text}")
    assert isinstance(parsed, UpstreamSpec)
    return parsed


def key_file(folder: Path, content: str, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(content)
    file.chmod(mode)
    return file


def test_a_key_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    """And there is none where none is pointed at."""
    assert upstream_key(spec(",key_env=MODELS_KEY"), {"MODELS_KEY": SECRET}) == SECRET
    file = key_file(tmp_path, f"{SECRET}\n")
    assert upstream_key(spec(f",key_file={file}"), {}) == SECRET
    assert upstream_key(spec(",slots=2"), {"MODELS_KEY": SECRET}) == ""


@pytest.mark.parametrize("value", ["", "two\nlines: x", "ümlaut", "x" * 5000])
def test_what_cannot_be_a_key_is_named_by_its_place(value: str) -> None:
    """Never by its content: the line is in a log."""
    with pytest.raises(EngineError, match="no API key in the variable MODELS_KEY") as caught:
        upstream_key(spec(",key_env=MODELS_KEY"), {"MODELS_KEY": value})
    assert value == "" or value not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With the remedy."""
    file = key_file(tmp_path, SECRET, 0o644)
    with pytest.raises(EngineError, match="chmod 600"):
        upstream_key(spec(f",key_file={file}"), {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(EngineError, match="absent cannot be read"):
        build(spec(f",key_file={tmp_path}/absent"))


@pytest.mark.parametrize(
    ("text", "said"),
    [(f",key_env={SECRET}", "not the key itself"), (",key_env=A,key_file=b", "not both")],
)
def test_a_key_does_not_belong_into_a_spec(text: str, said: str) -> None:
    """Everybody on the machine can read the list of processes."""
    with pytest.raises(SpecError, match=said):
        spec(text)
