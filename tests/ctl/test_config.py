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


def test_set_leaves_the_ends_of_other_lines(file: Path) -> None:
    """A file from another system stays one."""
    file.write_bytes(b'# mine\r\nname = "attic"\r\n')
    assert config("set", "keep_alive", "5m", "--config", str(file)) == exits.OK
    assert file.read_bytes() == b'# mine\r\nname = "attic"\r\nkeep_alive = "5m"\n'


def test_set_finds_the_home_as_the_daemon_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `--config=~/x` a shell leaves the ~ as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config("set", "keep_alive", "5m", "--config=~/x.toml") == exits.OK
    assert (tmp_path / "x.toml").exists()


def test_a_file_of_another_kind_is_usage(file: Path, capsys: Captured) -> None:
    """One line, as the daemon says it."""
    file.write_bytes(b"name = '\xff'")
    assert config("set", "keep_alive", "5m", "--config", str(file)) == exits.USAGE
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("set", "--config", "FILE", "keep_alive", "5m"),
        ("set", "keep_alive", "--config", "FILE", "5m"),
        ("--config", "FILE", "set", "keep_alive", "5m"),
    ],
)
def test_flags_may_stand_between_the_words(words: tuple[str, ...], file: Path) -> None:
    """Where a person puts them."""
    assert config(*[word.replace("FILE", str(file)) for word in words]) == exits.OK
    assert 'keep_alive = "5m"' in file.read_text()


@pytest.mark.parametrize("action", ["check", "path"])
def test_a_file_without_its_flag_is_usage(action: str, file: Path, capsys: Captured) -> None:
    """Else another file would be called good."""
    assert config(action, str(file)) == exits.USAGE
    assert "--config names a file" in capsys.readouterr().err
