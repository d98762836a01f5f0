"""Remembered peers: kept whole, bounded, and harmless when damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshd.net.remembered import (
    REMEMBER_EVERY_S,
    REMEMBERED_MAX,
    PeersFile,
    load_remembered,
    save_remembered,
)

LINKS = ("192.0.2.7:8788", "192.0.2.8:8788")


def test_links_survive_a_restart(tmp_path: Path) -> None:
    """Best first, readable by the owner only."""
    path = tmp_path / "peers.json"
    save_remembered(path, ("192.0.2.7:8788", "[fe80::1%eth0]:8788"))
    assert load_remembered(path) == ("192.0.2.7:8788", "[fe80::1%eth0]:8788")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_first_start_remembers_nobody(tmp_path: Path) -> None:
    """No file is no error."""
    assert load_remembered(tmp_path / "peers.json") == ()


def test_links_are_bounded(tmp_path: Path) -> None:
    """The best ones are kept."""
    path = tmp_path / "peers.json"
    links = [f"192.0.2.7:{port}" for port in range(1, 2 * REMEMBERED_MAX)]
    save_remembered(path, links)
    assert load_remembered(path) == tuple(links[:REMEMBERED_MAX])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"format": 1}', '{"format": 1, "peers": 7}', "[" * 100_000, "\x00"],
)
def test_damaged_file_is_one_line_and_no_peers(tmp_path: Path, text: str) -> None:
    """A file that cannot be used is said, and replaced at the next change."""
    path = tmp_path / "peers.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"remembered peers in .* are damaged"):
        load_remembered(path)


def test_directory_in_its_place_is_one_line(tmp_path: Path) -> None:
    """Whatever the file system says, the node starts."""
    with pytest.raises(ValueError, match="cannot read remembered peers"):
        load_remembered(tmp_path)


def test_entries_that_are_no_links_are_left_out(tmp_path: Path) -> None:
    """A hand-edited file does what it can."""
    path = tmp_path / "peers.json"
    path.write_text('{"format": 1, "peers": ["nonsense", 7, null, "192.0.2.7:8788"]}')
    assert load_remembered(path) == ("192.0.2.7:8788",)


def test_file_of_a_later_format_is_not_guessed_at(tmp_path: Path) -> None:
    """Peers are found again in a moment; misread ones would cost connection attempts."""
    path = tmp_path / "peers.json"
    path.write_text('{"format": 2, "peers": ["192.0.2.7:8788"]}')
    assert load_remembered(path) == ()


def test_the_same_peers_in_another_order_are_not_written_again(tmp_path: Path) -> None:
    """Who was heard last changes with every frame; a disk at rest stays at rest."""
    kept = PeersFile(tmp_path)
    kept.keep(LINKS, 0.0)
    kept.keep(LINKS[::-1], REMEMBER_EVERY_S)
    assert load_remembered(tmp_path / "peers.json") == LINKS
    kept.keep(LINKS[1:], 2 * REMEMBER_EVERY_S)
    assert load_remembered(tmp_path / "peers.json") == LINKS[1:]


def test_a_full_disk_is_said_once_and_tried_again(tmp_path: Path) -> None:
    """One line, not one for every draft's name; what was not written is written later."""
    home = tmp_path / "state"
    home.write_text("a file where the directory should be")
    kept = PeersFile(home)
    with pytest.raises(ValueError, match=r"cannot remember peers in .*; make room"):
        kept.keep(LINKS, 0.0)
    kept.keep(LINKS, REMEMBER_EVERY_S)
    home.unlink()
    kept.keep(LINKS, 2 * REMEMBER_EVERY_S)
    assert load_remembered(home / "peers.json") == LINKS
