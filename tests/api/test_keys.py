"""API keys: shown once, kept as hashes, taken back at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
from pathlib import Path

import pytest

from meshd.api import keys as api_keys
from meshd.api.keys import (
    KEYS_FILE,
    KEYS_MAX,
    KeysError,
    KeyStore,
    add_key,
    door_keys,
    list_keys,
    remove_key,
)

TODAY = "2026-01-31"


def test_a_key_lets_its_person_in_and_nobody_else(tmp_path: Path) -> None:
    """The key made for anna is anna's; a changed one, none, and nonsense are nobody's."""
    key = add_key(tmp_path, "anna", TODAY)
    store = KeyStore(tmp_path)
    assert store.person_of(key) == "anna"
    assert store.person_of(key)
    for wrong in (
        None,
        "",
        key[:-1],
        key + "x",
        key.upper(),
        "mk-",
        "é" * 40,
        "\ud800",
        "x" * 9999,
    ):
        assert store.person_of(wrong) is None
        assert not store.person_of(wrong)


def test_keys_are_long_random_and_never_stored(tmp_path: Path) -> None:
    """256 bits each; the file holds the hash alone, for its owner alone."""
    keys = [add_key(tmp_path, f"person-{number}", TODAY) for number in range(10)]
    assert len(set(keys)) == 10
    assert all(re.fullmatch(r"mk-[A-Za-z0-9_-]{43}", key) for key in keys)
    path = tmp_path / KEYS_FILE
    text = path.read_text()
    assert not [key for key in keys if key in text or key[3:] in text]
    assert hashlib.sha256(keys[0].encode()).hexdigest() in text
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_are_listed_oldest_first(tmp_path: Path) -> None:
    """Names and days, for people."""
    for name in ("carl", "anna"):
        add_key(tmp_path, name, TODAY)
    assert [(key.name, key.made) for key in list_keys(tmp_path)] == [
        ("carl", TODAY),
        ("anna", TODAY),
    ]


def test_without_a_file_there_are_no_keys(tmp_path: Path) -> None:
    """Then nobody is allowed, which is for the daemon to act on."""
    store = KeyStore(tmp_path)
    assert len(store) == 0
    assert not store.person_of("mk-anything")


def test_a_removed_key_opens_nothing_after_the_next_look(tmp_path: Path) -> None:
    """A running daemon sees additions and removals without a restart."""
    store = KeyStore(tmp_path)
    first, second = add_key(tmp_path, "anna", TODAY), add_key(tmp_path, "bert", TODAY)
    assert not store.person_of(first)
    store.refresh()
    assert len(store) == 2
    remove_key(tmp_path, "anna")
    store.refresh()
    assert (store.person_of(first), store.person_of(second)) == (None, "bert")
    (tmp_path / KEYS_FILE).unlink()
    store.refresh()
    assert len(store) == 0


async def test_the_watch_refreshes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon owns one task for it, and the loop never waits for the disk."""
    monkeypatch.setattr(api_keys, "LOOK_EVERY_S", 0.005)
    store = KeyStore(tmp_path)
    watch = asyncio.create_task(store.keep_fresh())
    key = add_key(tmp_path, "anna", TODAY)
    async with asyncio.timeout(10):
        while not store.person_of(key):  # noqa: ASYNC110 - another thread has no event to await
            await asyncio.sleep(0.001)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


def test_a_file_that_breaks_leaves_the_keys_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is locked out by an editor's accident, and it is said once."""
    key = add_key(tmp_path, "anna", TODAY)
    store = KeyStore(tmp_path)
    (tmp_path / KEYS_FILE).write_text("{")
    with caplog.at_level(logging.WARNING):
        store.refresh()
        store.refresh()
    assert store.person_of(key) == "anna"
    assert [record.message for record in caplog.records if "stay as they were" in record.message]
    assert len(caplog.records) == 1


def test_a_file_that_could_not_be_read_for_a_moment_is_read_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails once must not leave a removed key open for good."""
    key = add_key(tmp_path, "anna", TODAY)
    store = KeyStore(tmp_path)
    remove_key(tmp_path, "anna")
    with monkeypatch.context() as broken:
        broken.setattr(api_keys, "list_keys", failing)
        store.refresh()
    assert store.person_of(key)
    store.refresh()
    assert not store.person_of(key)


def failing(_: Path) -> None:
    raise KeysError("the disk says no")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2, "keys": []}', '{"format": 1, "keys": [{}]}', "[" * 100_000],
)
def test_a_damaged_file_is_reported_never_replaced(tmp_path: Path, text: str) -> None:
    """Neither by starting nor by adding a key."""
    path = tmp_path / KEYS_FILE
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeysError, match="restore it from a copy"):
        KeyStore(tmp_path)
    with pytest.raises(KeysError, match="restore it from a copy"):
        add_key(tmp_path, "anna", TODAY)
    assert path.read_text() == text


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """They could add a key of their own."""
    add_key(tmp_path, "anna", TODAY)
    (tmp_path / KEYS_FILE).chmod(0o620)
    with pytest.raises(KeysError, match="chmod 600"):
        KeyStore(tmp_path)


@pytest.mark.parametrize("name", ["", " anna", "-anna", "an na", "x" * 64, "a\nb", "ä"])
def test_a_name_is_a_word(tmp_path: Path, name: str) -> None:
    """It goes into logs and onto screens."""
    with pytest.raises(KeysError, match="is not a name"):
        add_key(tmp_path, name, TODAY)


def test_a_name_has_one_key(tmp_path: Path) -> None:
    """So that removing it removes all of it."""
    add_key(tmp_path, "anna@home", TODAY)
    with pytest.raises(KeysError, match="remove it first"):
        add_key(tmp_path, "anna@home", TODAY)


def test_removing_nobodys_key_is_said(tmp_path: Path) -> None:
    """With the names there are, because it was a typing error."""
    add_key(tmp_path, "anna", TODAY)
    with pytest.raises(KeysError, match="there are: anna"):
        remove_key(tmp_path, "ana")
    remove_key(tmp_path, "anna")
    with pytest.raises(KeysError, match="there are: none"):
        remove_key(tmp_path, "anna")


def test_keys_are_bounded(tmp_path: Path) -> None:
    """The next one is refused, and a file with more is read up to the bound."""
    rows = [{"name": f"n{i}", "sha256": "00", "made": TODAY} for i in range(KEYS_MAX + 1)]
    path = tmp_path / KEYS_FILE
    path.write_text(json.dumps({"format": 1, "keys": rows}))
    path.chmod(0o600)
    assert len(KeyStore(tmp_path)) == KEYS_MAX
    with pytest.raises(KeysError, match="nobody uses"):
        add_key(tmp_path, "anna", TODAY)


def test_places_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    """A state directory that is a file; a key file that is a directory."""
    (tmp_path / "state").write_text("")
    with pytest.raises(KeysError, match="cannot read"):
        add_key(tmp_path / "state", "anna", TODAY)
    (tmp_path / KEYS_FILE).mkdir()
    with pytest.raises(KeysError, match="cannot read"):
        KeyStore(tmp_path)


def test_a_full_disk_leaves_the_old_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half written stays behind."""
    key = add_key(tmp_path, "anna", TODAY)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(api_keys.os, "fsync", full)
    with pytest.raises(KeysError, match="make room"):
        add_key(tmp_path, "bert", TODAY)
    assert KeyStore(tmp_path).person_of(key) == "anna"
    assert [path.name for path in tmp_path.iterdir()] == [KEYS_FILE]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_asks_for_no_key(tmp_path: Path, host: str) -> None:
    """Whether there are keys or not: who comes that way is taken for the owner."""
    assert door_keys(host, tmp_path) is None
    add_key(tmp_path, "anna", TODAY)
    assert door_keys(host, tmp_path) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "attic"])
def test_a_wider_door_needs_a_key_to_open(tmp_path: Path, host: str) -> None:
    """And stays shut to everybody when the last key is taken back."""
    with pytest.raises(KeysError, match=rf"{host} would .* `meshctl keys add NAME --state-dir"):
        door_keys(host, tmp_path)
    key = add_key(tmp_path, "anna", TODAY)
    store = door_keys(host, tmp_path)
    assert store is not None
    assert store.person_of(key)
    remove_key(tmp_path, "anna")
    store.refresh()
    assert not store.person_of(key)
    assert not store.person_of(None)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_root_makes_the_file_for_the_owner_of_its_folder(tmp_path: Path) -> None:
    """A service's user must be able to read what `sudo meshctl keys add` wrote."""
    os.chown(tmp_path, 12_345, 12_346)
    add_key(tmp_path, "anna", TODAY)
    made = (tmp_path / KEYS_FILE).stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (12_345, 12_346, 0o600)
