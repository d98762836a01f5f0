"""`meshctl models load|unload|pin|unpin`: questions, words and exit codes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ctl.conftest import Meshctl

STATE = {"model": "qwen3-8b", "warm": True, "pinned": True, "reserved_bytes": 7_200_000_000}


@pytest.mark.parametrize(
    ("words", "path", "asked"),
    [
        (["load", "m"], "/mesh/v1/models/load", {"model": "m"}),
        (["load", "m", "--force"], "/mesh/v1/models/load", {"model": "m", "force": True}),
        (["load", "--force", "m"], "/mesh/v1/models/load", {"model": "m", "force": True}),
        (["unpin", "m"], "/mesh/v1/models/unpin", {"model": "m"}),
    ],
)
def test_the_node_is_told_and_its_state_is_shown(
    meshctl: Meshctl, daemon: Any, words: list[str], path: str, asked: dict[str, Any]
) -> None:
    """One line: what is in memory, and how much models hold."""
    daemon.bodies = {path: STATE}
    done = meshctl("models", *words)
    assert done.stdout == "qwen3-8b is in memory, pinned; models here hold 7.20 GB of memory\n"
    assert (done.returncode, daemon.asked[0][0], daemon.asked[0][2]) == (0, path, asked)


def test_a_refusal_is_the_nodes_own_arithmetic(meshctl: Meshctl, daemon: Any) -> None:
    """On standard error, and exit 1."""
    daemon.bodies = {"/mesh/v1/models/load": {"error": {"message": "m needs 9.00 GB"}}}
    daemon.status = 507
    done = meshctl("models", "load", "m")
    assert (done.returncode, done.stdout) == (1, "")
    assert "m needs 9.00 GB" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"), [(["load"], "which one?"), (["pin", "m", "--force"], "for `models load`")]
)
def test_what_is_not_whole_is_wrong_usage(meshctl: Meshctl, words: list[str], said: str) -> None:
    """Exit 2, before any node is asked."""
    done = meshctl("models", *words)
    assert done.returncode == 2
    assert said in done.stderr
