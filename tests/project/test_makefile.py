"""Which Python `make` sets the house up with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")

FAKE = """#!/bin/sh
case "$1 $2" in
*ensurepip*) exit {lacks_pip};;
-I*) {pace};;
"-m venv") mkdir -p .tools/bin; cp "$0" .tools/bin/python; echo {name} > chosen;;
esac
"""
"""A Python as far as the rule asks it: for pip, how fast it is, and for an environment."""

TIMED = """cat "$0.later" 2>/dev/null || echo {0}; echo {1} > "$0.later\""""
"""What the first asking measures, and what the later ones do."""


def make(folder: Path, setting: str) -> tuple[str, str]:
    """The Python that was taken, and what was said."""
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON"}
    done = subprocess.run(
        ["make", "-f", ROOT / "Makefile", ".tools/bin/uv", setting],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in outer},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    chosen = folder / "chosen"
    taken = chosen.read_text().strip() if chosen.exists() else ""
    assert (done.returncode == 0) == bool(taken), done.stderr
    return taken, done.stdout + done.stderr


def set_up(folder: Path, **pythons: str) -> tuple[str, str]:
    """`make` where there are these; each is told what it answers when first and later asked how
    fast it is."""
    folder.mkdir()
    for name, answer in pythons.items():
        fake = folder / name
        pace = TIMED.format(*answer.split()) if answer[0].isdigit() else "exit 1"
        fake.write_text(FAKE.format(lacks_pip=int(answer == "no pip"), pace=pace, name=name))
        fake.chmod(0o755)
    return make(folder, "PYTHONS=" + " ".join(str(folder / name) for name in pythons))


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("1000 1000", "900 900", "first"),
        ("1000 1000", "700 700", "second"),
        ("700 700", "1000 1000", "first"),
        ("9000 1000", "900 900", "first"),
        ("1000 1000", "9000 700", "second"),
    ],
)
def test_the_first_is_taken_unless_the_other_is_much_quicker(
    tmp_path: Path, first: str, second: str, taken: str
) -> None:
    """Each by its best time, as a busy moment is no measure; it is said when it is not the
    first."""
    chosen, said = set_up(tmp_path / "house", first=first, second=second)
    assert chosen == taken
    assert ("much slower" in said) == (taken == "second")


@pytest.mark.parametrize("answer", ["too old", "no pip"])
def test_one_that_cannot_run_a_node_is_passed_over(tmp_path: Path, answer: str) -> None:
    """However slow the other is."""
    assert set_up(tmp_path / "house", first=answer, second="9000 9000")[0] == "second"


def test_without_any_it_says_what_is_missing(tmp_path: Path) -> None:
    """And sets nothing up."""
    _, said = set_up(tmp_path / "house", only="no pip")
    assert "cannot make a virtual environment" in said
    _, said = make(tmp_path, "PYTHON=no-such-python")
    assert "needs Python 3.11 or newer; no-such-python is not there" in said
