"""Files are replaced whole: the old content or the new, and nothing beside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.replacing import PUBLIC_MODE, alone_in, replace_file


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    """Whatever goes wrong on the way."""
    path = tmp_path / "kept"
    replace_file(path, b"old")
    with pytest.raises(TypeError):
        replace_file(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("flush", "synced"), [(True, ["kept.", "."]), (False, [])])
def test_what_is_flushed_lasts_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool, synced: list[str]
) -> None:
    """A key that was taken back must not be there again after a power cut: the content is made to
    last first, then the folder that names it."""
    folder, seen = tmp_path.stat().st_ino, []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: seen.append("." if os.fstat(handle).st_ino == folder else "kept."),
    )
    replace_file(tmp_path / "kept", b"new", flush=flush)
    assert seen == synced


def test_private_unless_told_and_its_folder_is_made(tmp_path: Path) -> None:
    """Keys are nobody else's; units are everybody's."""
    secret, unit = tmp_path / "deep" / "key", tmp_path / "unit"
    replace_file(secret, b"x")
    replace_file(unit, b"x", mode=PUBLIC_MODE)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert unit.stat().st_mode & 0o777 == 0o644


ADD = """
import sys
from pathlib import Path
from meshd.replacing import alone_in, replace_file
file = Path(sys.argv[1]) / "count"
for _ in range(50):
    with alone_in(file.parent):
        replace_file(file, str(int(file.read_text()) + 1).encode(), flush=False)
"""


def test_who_changes_a_file_waits_for_others_that_do(tmp_path: Path) -> None:
    """Nothing is lost between reading and replacing, and no lock lies about."""
    (tmp_path / "count").write_text("0")
    adding = [subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path)]) for _ in range(3)]
    assert [each.wait(15) for each in adding] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_folder_that_is_not_there_holds_up_nobody(tmp_path: Path) -> None:
    """The change itself says what is wrong."""
    with alone_in(tmp_path / "none"):
        assert not (tmp_path / "none").exists()
    with alone_in(tmp_path / "new", make=True):
        assert (tmp_path / "new").exists()
