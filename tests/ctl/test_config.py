"""`meshctl config get|set`: one setting of the daemon's file, checked before it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.ctl import exits
from meshd.ctl.app import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file with a comment."""
    file = tmp_path / "config.toml"
    file.write_text('# mine\nname = "attic"\n')
    return file


def config(*words: str) -> int:
    """Runs `meshctl config ...`."""
    return main(["config", *words])


def test_set_then_get(file: Path, capsys: Captured) -> None:
    """And the comment is still there."""
    assert config("set", "keep_alive", "5m", "--config", str(file)) == exits.OK
    assert "takes it over" in capsys.readouterr().out
    assert config("get", "keep_alive", "--config", str(file)) == exits.OK
    assert capsys.readouterr().out == "300s\n"
    assert file.read_text().startswith("# mine\n")


def test_what_waits_for_a_restart_is_said(file: Path, capsys: Captured) -> None:
    """The endpoint's address does not move under its clients."""
    assert config("set", "http", "127.0.0.1:9000", "--config", str(file), "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["live"] is False


def test_a_wrong_value_is_refused_and_the_file_left(file: Path, capsys: Captured) -> None:
    """Usage, with the reason."""
    before = file.read_text()
    assert config("set", "name", "two words", "--config", str(file)) == exits.USAGE
    assert "not a node name" in capsys.readouterr().err
    assert file.read_text() == before


@pytest.mark.parametrize("words", [("get",), ("set",), ("get", "name", "x")])
def test_a_missing_key_is_usage(words: tuple[str, ...], capsys: Captured) -> None:
    """Which setting?"""
    assert config(*words) == exits.USAGE
    assert "which setting" in capsys.readouterr().err
