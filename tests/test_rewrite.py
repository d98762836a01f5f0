"""Changing one setting: the rest of the file stays as its owner wrote it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from meshd import rewrite
from meshd.config import ConfigError
from meshd.rewrite import option_named, save, with_setting

OWN = """\
# mine
name = "attic"  # upstairs

# who is where
peers = ["10.0.0.2:8788"]
"""


@pytest.mark.parametrize(
    ("key", "words", "value"),
    [
        ("name", ["cellar"], "cellar"),
        ("http", ["0.0.0.0:9000"], "0.0.0.0:9000"),
        ("no-mdns", ["true"], True),
        ("keep_alive", ["5m"], "5m"),
        ("engine", ["emulated:model=a,slots=2", "openai:http://localhost:1"],
         ["emulated:model=a,slots=2", "openai:http://localhost:1"]),
    ],
)  # fmt: skip
def test_a_setting_is_written_as_the_daemon_reads_it(
    key: str, words: list[str], value: object
) -> None:
    """Texts, switches and lists."""
    text = with_setting("", option_named(key), words, Path())
    assert tomllib.loads(text) == {key.replace("-", "_"): value}


def test_comments_and_order_stay() -> None:
    """Only the one value changes."""
    text = with_setting(OWN, option_named("name"), ["cellar"], Path())
    assert text == OWN.replace('"attic"', '"cellar"')


def test_a_key_spelt_another_way_is_changed_where_it_stands() -> None:
    """`peers` is `peer`; both in one file would be an error."""
    text = with_setting(OWN, option_named("peer"), ["10.0.0.3:1"], Path())
    assert tomllib.loads(text)["peers"] == ["10.0.0.3:1"]
    assert "peer =" not in text


def test_no_words_take_it_out() -> None:
    """Back to the default."""
    assert "name" not in tomllib.loads(with_setting(OWN, option_named("name"), [], Path()))
    assert with_setting(OWN, option_named("http"), [], Path()) == OWN


@pytest.mark.parametrize(
    ("key", "words", "says"),
    [
        ("name", ["two words"], "not a node name"),
        ("name", ["a", "b"], "one value"),
        ("no_mdns", ["maybe"], "neither true nor false"),
        ("mesh", ["nowhere"], "mesh:"),
    ],
)
def test_what_the_daemon_would_refuse_is_not_written(key: str, words: list[str], says: str) -> None:
    """Said now, and not at the next start."""
    with pytest.raises(ConfigError, match=says):
        with_setting(OWN, option_named(key), words, Path())


def test_an_unknown_key_names_the_nearest_one() -> None:
    """As everywhere else."""
    with pytest.raises(ConfigError, match="did you mean keep_alive"):
        option_named("keepalive")


def test_a_broken_file_is_not_made_worse() -> None:
    """Its owner mends it first."""
    with pytest.raises(ConfigError, match="not valid TOML"):
        with_setting('name = "half', option_named("name"), ["x"], Path())


def test_saving_through_a_link_changes_the_file_that_it_leads_to(tmp_path: Path) -> None:
    """Settings that are kept in a repository stay there."""
    file, link = tmp_path / "real.toml", tmp_path / "config.toml"
    link.symlink_to(file)
    for text in ("first", "second"):
        save(link, text)
        assert file.read_text() == text
    assert link.is_symlink()


def test_saving_keeps_the_mode_and_leaves_nothing_beside(tmp_path: Path) -> None:
    """A file that only its owner may read stays so."""
    file = tmp_path / "config.toml"
    file.write_text("old")
    file.chmod(0o600)
    save(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_a_file_to_its_owner(tmp_path: Path) -> None:
    """Else a private file could not be read any more by the daemon that it is for."""
    file = tmp_path / "config.toml"
    file.write_text("old")
    os.chown(file, 1234, 1234)
    save(file, "new")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1234)


def test_a_file_of_roots_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's service reads such a one, and people try without sudo first."""

    def refused(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rewrite, "replace_file", refused)
    with pytest.raises(ConfigError, match="try again with sudo"):
        save(tmp_path / "config.toml", "")
