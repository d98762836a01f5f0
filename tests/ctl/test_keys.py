"""`meshctl keys`: a key is shown once; no daemon is asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd.api.keys import KEYS_FILE, KeyStore
from meshd.ctl.app import main
from meshd.ctl.service import systemd

Meshctl = Callable[..., subprocess.CompletedProcess[str]]


def test_a_new_key_is_the_only_line_on_stdout(
    meshctl: Meshctl, daemon: Any, tmp_path: Path
) -> None:
    """It opens the door; what to do with it goes to stderr, and no node is asked."""
    done = meshctl("keys", "add", "anna", "--state-dir", str(tmp_path))
    assert done.returncode == 0
    assert re.fullmatch(r"mk-[A-Za-z0-9_-]{43}\n", done.stdout)
    assert KeyStore(tmp_path).person_of(done.stdout.strip()) == "anna"
    assert "shown this once" in done.stderr
    assert "--http 0.0.0.0:8787" in done.stderr
    assert done.stdout.strip() not in done.stderr
    assert daemon.asked == []


def test_who_listens_wider_already_is_not_told_to(meshctl: Meshctl, tmp_path: Path) -> None:
    """The settings of the daemon are read as the daemon reads them."""
    env = {"MESHD_STATE_DIR": str(tmp_path), "MESHD_HTTP": "0.0.0.0:8787"}
    done = meshctl("keys", "add", "anna", **env)
    assert (done.returncode, "--http" in done.stderr) == (0, False)
    assert len(KeyStore(tmp_path)) == 1


def test_keys_are_listed_without_secrets(meshctl: Meshctl, tmp_path: Path) -> None:
    """Names and days; an empty list says how to make one."""
    place = ("--state-dir", str(tmp_path))
    assert "meshctl keys add NAME" in meshctl("keys", "list", *place).stdout
    key = json.loads(meshctl("keys", "add", "anna", "--json", *place).stdout)["key"]
    done = meshctl("keys", "list", *place)
    assert re.fullmatch(r"NAME +MADE\nanna +\d{4}-\d\d-\d\d\n", done.stdout)
    rows = json.loads(meshctl("keys", "list", "--json", *place).stdout)["keys"]
    assert [sorted(row) for row in rows] == [["made", "name"]]
    assert key not in done.stdout


def test_a_key_can_be_taken_back(meshctl: Meshctl, tmp_path: Path) -> None:
    """And is gone from the file."""
    place = ("--state-dir", str(tmp_path))
    meshctl("keys", "add", "anna", *place)
    done = meshctl("keys", "remove", "anna", *place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "opens nothing any more" in done.stdout
    assert len(KeyStore(tmp_path)) == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add"], 2, "keys add needs a NAME"),
        (["remove"], 2, "keys remove needs a NAME"),
        (["list", "anna"], 2, "keys list takes no NAME"),
        (["make", "anna"], 2, "'make'"),
        (["add", "an na"], 1, "is not a name for a key"),
        (["remove", "anna"], 1, "there are: none"),
        (["list", "--config", "nowhere.toml"], 2, "no such config file"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    meshctl: Meshctl, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    """2 for the command line and the settings, 1 for the keys themselves."""
    done = meshctl("keys", *words, "--state-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert not (tmp_path / KEYS_FILE).exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="where systemd is")
def test_the_services_keys_are_made_where_the_service_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its unit names its state directory, which no setting does; one that is told still holds."""
    units, state, own = tmp_path / "etc", tmp_path / "state", tmp_path / "own"
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", units)
    monkeypatch.setattr(systemd, "SYSTEM_STATE", (state,))
    monkeypatch.setenv("XDG_STATE_HOME", str(own))
    assert main(["keys", "add", "anna"]) == 0
    units.mkdir()
    (units / systemd.UNIT).touch()
    assert main(["keys", "add", "bob"]) == 0
    assert main(["keys", "add", "carl", "--state-dir", str(own / "meshd")]) == 0
    assert str(state) in capsys.readouterr().err
    assert (len(KeyStore(own / "meshd")), len(KeyStore(state))) == (2, 1)
