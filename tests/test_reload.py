"""Settings that change while the daemon runs: some at once, the others said to wait."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.config import ConfigError, Settings
from meshd.options import OPTIONS
from meshd.reload import Watch, changed, taken_over

OLD = Settings(state_dir=Path("s"), name="attic")
NEW = replace(OLD, keep_alive_s=60.0, on_battery="one", http_port=9999)


def test_what_has_changed_is_found_by_option() -> None:
    """An address is one option of two fields."""
    assert {option.key for option in changed(OLD, NEW)} == {"http", "keep_alive", "on_battery"}


def test_only_live_settings_are_taken_over() -> None:
    """The endpoint stays where clients know it."""
    held = taken_over(OLD, NEW)
    assert (held.keep_alive_s, held.on_battery) == (60.0, "one")
    assert held.http_port == OLD.http_port
    assert {option.key for option in OPTIONS if option.live} >= {"keep_alive", "memory_reserve"}


async def test_a_changed_file_is_applied_and_the_rest_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the daemon's own log, where its owner looks."""
    applied: list[Settings] = []
    watch = Watch(OLD, lambda: (NEW, None), applied.append)
    with caplog.at_level(logging.INFO):
        await watch.look()
    assert applied == [taken_over(OLD, NEW)]
    assert "taken over from the settings: keep_alive, on_battery" in caplog.text
    assert "only from the next start on: http" in caplog.text


async def test_a_file_that_cannot_be_used_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Half written, or mistyped."""

    def broken() -> tuple[Settings, Path | None]:
        raise ConfigError("config.toml, line 3: keep_alive: 'x' is not a time")

    applied: list[Settings] = []
    await Watch(OLD, broken, applied.append).look()
    assert applied == []
    assert "line 3" in caplog.text
