"""`python -m protocol`: what it prints, where, and how it exits."""

from __future__ import annotations

import io
import json
import runpy
import shutil
from pathlib import Path

import pytest

from protocol import codec
from protocol.__main__ import HERE, main
from protocol.envelope import Envelope
from protocol.messages import Cancel

FRAME = codec.encode(Envelope("home", "00" * 16, 1, 2), Cancel("request-1"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the page and the vectors that a test may change."""
    shutil.copy(HERE / "SPEC.md", tmp_path)
    shutil.copytree(HERE / "vectors", tmp_path / "vectors")
    return tmp_path


def rewrite(path: Path, before: str, after: str) -> None:
    """Replace a text that is there."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_dump_prints_a_frame_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Envelope and message, by name, on stdout."""
    assert main(["dump", FRAME.hex(" ")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["Envelope"]["mesh"] == "home"
    assert printed["Cancel"] == {"request_id": "request-1"}


def test_dump_reads_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-` stands for stdin."""
    monkeypatch.setattr("sys.stdin", io.StringIO(FRAME.hex() + "\n"))
    assert main(["dump", "-"]) == 0
    assert "request-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("4d5", "not hexadecimal"),
        ("00", "not a frame of this version: magic"),
        (FRAME.hex()[:-2], "not a frame of this version: malformed"),
    ],
)
def test_dump_says_why_not(text: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr, nothing on stdout, exit 1."""
    assert main(["dump", text]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err


def test_vectors_hold(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped vectors are complete and right."""
    assert main(["vectors"], home) == 0
    assert ", 0 wrong" in capsys.readouterr().out


def test_vectors_name_the_row_that_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed value, a changed code, and a missing row are each named on stderr."""
    rewrite(home / "vectors" / "accept.json", '"name": "Job least"', '"name": "Job of old"')
    rewrite(home / "vectors" / "accept.json", '"pi-kitchen"', '"pi-cellar"')
    rewrite(home / "vectors" / "reject.json", '"code": "magic"', '"code": "range"')
    assert main(["vectors"], home) == 1
    err = capsys.readouterr().err
    assert "Job least: no vector yet" in err
    assert "Ping with gossip: decoded to" in err
    assert "refused with magic, not range" in err


def test_missing_vectors_are_appended_and_no_other_row_changes(home: Path) -> None:
    """`--write` only adds lines: a golden row stays as it is."""
    accepted = home / "vectors" / "accept.json"
    rewrite(accepted, '"name": "Job least"', '"name": "Job of old"')
    before = accepted.read_text(encoding="utf-8").splitlines()
    assert main(["vectors", "--write"], home) == 0
    after = accepted.read_text(encoding="utf-8").splitlines()
    assert after[: len(before) - 2] == before[:-2]
    assert len(after) == len(before) + 1
    assert '"name": "Job least"' in after[-2]
    assert main(["vectors", "--write"], home) == 0
    assert accepted.read_text(encoding="utf-8").splitlines() == after


def test_spec_refreshes_the_page(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stale table is told by `--check`, and mended without it."""
    page = home / "SPEC.md"
    fresh = page.read_text(encoding="utf-8")
    assert main(["spec", "--check"], home) == 0
    rewrite(page, "| `MEMBERS_MAX` | 1,024 |", "| `MEMBERS_MAX` | 64 |")
    assert main(["spec", "--check"], home) == 1
    assert "run: python -m protocol spec" in capsys.readouterr().err
    assert main(["spec"], home) == 0
    assert page.read_text(encoding="utf-8") == fresh


@pytest.mark.parametrize("arguments", [[], ["dump"], ["vector"], ["spec", "--force"]])
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    """As every command line tool does."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


def test_the_module_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m protocol` is this function."""
    monkeypatch.setattr("sys.argv", ["protocol", "dump", FRAME.hex()])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(HERE / "__main__.py"), run_name="__main__")
    assert exit_.value.code == 0
