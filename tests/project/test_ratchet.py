"""Nothing grows long: functions and files keep to their size. (Lines: ruff, E501.)

What was longer when this law was made would be listed in LONGER with its size then. The list only
gets shorter: an entry must name something that is still that long, and none may be added.
"""

from __future__ import annotations

from tests.project.sources import OURS, code_lines, functions, name_of, python_files

FUNCTION_MAX_LINES = 50
"""Code lines of a function: what fits on one screen with room for the thought."""

FILE_MAX_LINES = 400
"""Lines of a file, all of them: one room, read in one sitting."""

LONGER: dict[str, int] = {}
"""`file` or `file:function` -> its size when the law was made."""


def sizes() -> dict[str, int]:
    """Everything that is over its limit, with its size."""
    over: dict[str, int] = {}
    for file in python_files(*OURS):
        name, lines = name_of(file), code_lines(file)
        length = len(file.read_text("utf-8").splitlines())
        over |= {name: length} if length > FILE_MAX_LINES else {}
        for function in functions(file):
            span = range(function.lineno, (function.end_lineno or function.lineno) + 1)
            size = len(lines.intersection(span))
            if size > FUNCTION_MAX_LINES:
                over[f"{name}:{function.name}"] = size
    return over


def test_nothing_is_longer_than_it_may_be() -> None:
    """A function has at most 50 code lines, a file 400 lines; split along a seam of meaning."""
    assert {name: size for name, size in sizes().items() if size > LONGER.get(name, 0)} == {}


def test_the_ratchet_only_tightens() -> None:
    """What became shorter leaves the list, or lowers its number, in the same change."""
    now = sizes()
    assert {name: now.get(name, 0) for name in LONGER} == LONGER
