"""`python -m protocol`: look at a frame, check the golden vectors, refresh SPEC.md's tables.

    dump HEX            print what a frame says (`-` reads the hexadecimal from stdin)
    vectors [--write]   check the golden vectors; --write first appends what is missing
    spec [--check]      bring SPEC.md's tables up to date; --check only tells

Exit 0 when all is well, 1 when not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocol import codec, spec, vectors
from protocol.errors import ProtocolError
from protocol.inventory import plain

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None, home: Path = HERE) -> int:
    """Run one command. `home` is where SPEC.md and vectors/ lie."""
    parser = argparse.ArgumentParser(
        prog="python -m protocol",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dump").add_argument("hex", help="hexadecimal, blanks allowed, or -")
    commands.add_parser("vectors").add_argument("--write", action="store_true")
    commands.add_parser("spec").add_argument("--check", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.command == "dump":
        return dump(sys.stdin.read() if chosen.hex == "-" else chosen.hex)
    if chosen.command == "vectors":
        return check_vectors(home / "vectors", write=chosen.write)
    return refresh_spec(home / "SPEC.md", write=not chosen.check)


def dump(text: str) -> int:
    """Print the frame that `text` is the hexadecimal of, or why it is none."""
    try:
        frame = bytes.fromhex(text)
    except ValueError as error:
        return _fail(f"not hexadecimal: {error}")
    try:
        envelope, message = codec.decode(frame)
    except ProtocolError as error:
        return _fail(f"not a frame of this version: {error}")
    _say(json.dumps({**plain(envelope), **plain(message)}, indent=2, ensure_ascii=False))
    return 0


def check_vectors(folder: Path, *, write: bool) -> int:
    """Check every golden vector; print what fails."""
    accepted = _read(folder / "accept.json")
    refused = _read(folder / "reject.json")
    absent = vectors.missing(accepted)
    if write and absent:
        accepted += absent
        (folder / "accept.json").write_text(_rows(accepted), encoding="utf-8")
    complaints = [] if write else [f"{vector['name']}: no vector yet" for vector in absent]
    complaints += filter(None, map(vectors.check_accepted, accepted))
    complaints += filter(None, map(vectors.check_refused, refused))
    for complaint in complaints:
        _fail(complaint)
    _say(f"{len(accepted)} accepted and {len(refused)} refused vectors, {len(complaints)} wrong")
    return 1 if complaints else 0


def refresh_spec(page: Path, *, write: bool) -> int:
    """Bring the tables of SPEC.md up to date, or only say whether they are."""
    before = page.read_text(encoding="utf-8")
    after = spec.render(before)
    if after == before:
        _say(f"{page.name} is up to date")
        return 0
    if not write:
        return _fail(f"{page.name} differs from the code; run: python -m protocol spec")
    page.write_text(after, encoding="utf-8")
    _say(f"{page.name} rewritten")
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _rows(rows: Sequence[object]) -> str:
    """A JSON list with one row a line, so that a change shows as the rows it touches."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _fail(line: str) -> int:
    sys.stderr.write(line + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
