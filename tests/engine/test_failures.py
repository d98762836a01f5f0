"""Claims of meshd.engine.failures."""

from __future__ import annotations

import ast

from meshd.engine.failures import failure_of
from protocol import limits
from protocol.codec import pack
from protocol.fields import encode_record
from tests.project.sources import python_files, tree_of


def test_a_long_reason_is_cut_to_what_the_wire_carries():
    """The beginning stays, and it can be seen that there was more."""
    failure = failure_of("engine_failed", "because " * 999, elsewhere=True, param="p" * 999)
    assert len(failure.message) == limits.DETAIL_MAX_CHARS
    assert failure.message.startswith("because because")
    assert failure.message.endswith("…")
    assert pack(encode_record(failure))


def test_a_short_reason_is_left_alone():
    """Code, hint and field with it."""
    failure = failure_of("overloaded", "later", elsewhere=True, retry_after_s=2.0, param="x")
    assert (failure.message, failure.retry_after_s, failure.param) == ("later", 2.0, "x")


def test_no_engine_makes_a_failure_of_its_own():
    """Or its words might be too many for the wire."""
    makers = {
        file.name
        for file in python_files("meshd/engine")
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Failure"
    }
    assert makers == {"failures.py"}
