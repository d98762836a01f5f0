"""Claims of meshd.engine.ledger: several daemons, one folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshd.engine.ledger import Ledger

GB = 10**9
CHILD = """
import sys, time
from pathlib import Path
from meshd.engine.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.update({"m": (5, 1)})
print("promised", flush=True)
time.sleep(60)
"""


def promise(ledger: Ledger, model: str, size: int) -> dict[str, list[tuple[int, int]]]:
    """Promise, and say what was seen of others at that moment."""
    return ledger.decide(lambda others: (dict(others), {model: (size, 0)}))


def test_what_one_promises_another_sees(tmp_path: Path) -> None:
    """By control group; but nobody sees their own, which they know."""
    one, two = Ledger(tmp_path, "/one"), Ledger(tmp_path)
    assert promise(one, "a", 4 * GB) == {}
    assert promise(two, "b", 2 * GB) == {"/one": [(4 * GB, 0)]}
    assert one.others() == {"": [(2 * GB, 0)]}
    one.update({"a": (4 * GB, 3 * GB)})
    assert two.others() == {"/one": [(4 * GB, 3 * GB)]}
    one.close()
    assert two.others() == {}
    two.close()


def test_a_file_that_was_swept_away_is_written_again(tmp_path: Path) -> None:
    """As systemd and macOS do with what looks forgotten: the promise holds all the same."""
    one, two = Ledger(tmp_path), Ledger(tmp_path)
    promise(one, "a", 4 * GB)
    for file in tmp_path.glob("*.json"):
        file.unlink()
    one.update({"a": (4 * GB, 0)})
    assert two.others() == {"": [(4 * GB, 0)]}
    one.close()
    assert [*tmp_path.glob("*.json")] == []


def test_a_rule_that_promises_nothing_leaves_nothing(tmp_path: Path) -> None:
    """A refused load holds no memory."""
    one, two = Ledger(tmp_path), Ledger(tmp_path)
    assert one.decide(lambda _others: ("no", {})) == "no"
    assert two.others() == {}


def test_the_promises_of_a_killed_daemon_are_gone_with_it(tmp_path: Path) -> None:
    """The kernel lets go of its lock, and the next reader removes its file."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        ledger = Ledger(tmp_path)
        assert ledger.others() == {"": [(5, 1)]}
        child.kill()
        child.wait()
    assert not any(ledger.others().values())
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("text", ["", "{}", "[[1]]", '[["1", 2]]', "[[-1, 0]]", "[" * 9000, "\xff"])
def test_what_others_write_is_not_believed_beyond_its_numbers(tmp_path: Path, text: str) -> None:
    """A file of nonsense, held by a living process, promises nothing and breaks nothing."""
    one, two = Ledger(tmp_path), Ledger(tmp_path)
    promise(one, "a", 1)
    (file,) = tmp_path.glob("*.json")
    file.write_text(text, encoding="latin-1")
    assert not any(two.others().values())
    one.close()


def test_the_file_of_a_daemon_before_control_groups_is_read(tmp_path: Path) -> None:
    """It does not say where it runs, and counts for the machine as a whole."""
    one, two = Ledger(tmp_path, "/one"), Ledger(tmp_path)
    promise(one, "a", 1)
    (file,) = tmp_path.glob("*.json")
    file.write_text("[[5, 1]]")
    assert two.others() == {"": [(5, 1)]}
    one.close()


def test_without_the_folder_a_daemon_counts_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, and works."""
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file" / "below")
    assert promise(ledger, "a", 1) == {}
    assert promise(ledger, "b", 1) == {}
    assert dict(ledger.promises) == {"a": (1, 0), "b": (1, 0)}
    assert caplog.text.count("counts its own alone") == 1
    ledger.close()
