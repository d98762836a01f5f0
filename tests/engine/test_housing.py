"""Claims of meshd.engine.housing."""

from __future__ import annotations

import logging

import pytest

from meshd.engine.housing import PINS_FILE, PINS_MAX, Pins


def test_pins_are_kept_and_read_again(tmp_path):
    """By the next daemon with the same state directory."""
    pins = Pins(tmp_path)
    pins.load()
    pins.change("a", pinned=True)
    pins.change("b", pinned=True)
    pins.change("a", pinned=False)
    again = Pins(tmp_path)
    again.load()
    assert ("a" in again, "b" in again) == (False, True)
    assert [file.name for file in tmp_path.iterdir()] == [PINS_FILE]


def test_without_a_state_directory_pins_last_as_long_as_the_daemon():
    """Nothing is written anywhere."""
    pins = Pins(None)
    pins.load()
    pins.change("a", pinned=True)
    assert "a" in pins


@pytest.mark.parametrize("kept", [b"", b"{", b'{"a": 1}', b"[1]", b"\xff", b'["a'])
def test_a_broken_file_is_said_and_pins_nothing(tmp_path, caplog, kept):
    """A daemon starts all the same, and the next pin mends the file."""
    (tmp_path / PINS_FILE).write_bytes(kept)
    pins = Pins(tmp_path)
    with caplog.at_level(logging.WARNING):
        pins.load()
    assert "pins cannot be read" in caplog.text
    pins.change("b", pinned=True)
    again = Pins(tmp_path)
    again.load()
    assert "b" in again


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path, caplog):
    """The pin holds until the daemon ends."""
    (tmp_path / "state").write_bytes(b"a file where the directory should be")
    pins = Pins(tmp_path / "state")
    pins.change("a", pinned=True)
    assert "pins last until this daemon ends" in caplog.text
    assert "a" in pins


def test_there_are_so_many_pins_and_no_more():
    """A table that anybody can write to has an end."""
    pins = Pins(None)
    for number in range(PINS_MAX + 1):
        pins.change(str(number), pinned=True)
    assert str(PINS_MAX - 1) in pins
    assert str(PINS_MAX) not in pins
