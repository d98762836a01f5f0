"""Files are replaced whole: the old content or the new, and nothing beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.replacing import PUBLIC_MODE, replace_file


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    """Whatever goes wrong on the way."""
    path = tmp_path / "kept"
    replace_file(path, b"old")
    with pytest.raises(TypeError):
        replace_file(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_private_unless_told_and_its_folder_is_made(tmp_path: Path) -> None:
    """Keys are nobody else's; units are everybody's."""
    secret, unit = tmp_path / "deep" / "key", tmp_path / "unit"
    replace_file(secret, b"x")
    replace_file(unit, b"x", mode=PUBLIC_MODE)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert unit.stat().st_mode & 0o777 == 0o644
