"""The demonstration that `make demo` shows, run for real."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib.util import find_spec

import pytest

from meshd.ctl.demo import DemoFailed, pieces_of


@pytest.mark.slow  # three processes, a model loaded, two answers at reading speed: about 15 s
@pytest.mark.timeout(150)
@pytest.mark.skipif(not find_spec("llama_cpp"), reason="needs the extra `llama`")
def test_the_demonstration_happens_as_told() -> None:
    """A question answered by the node that has the model; a node killed, its answer from another;
    one killed as it speaks, its sentence finished. Exit 0 only if all of it happened."""
    done = subprocess.run(
        [sys.executable, "-m", "meshd.ctl.demo"],
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answered by kitchen" in done.stdout
    assert "answered by shed in attempt 2" in done.stdout
    assert "lists attic as dead" in done.stdout
    assert "no word lost and none doubled" in done.stdout
    assert done.stderr == ""


def test_a_streamed_answer_is_read_piece_by_piece() -> None:
    """Comments, the final marker and chunks without text are no pieces."""
    stream = io.BytesIO(
        b": hello\n\n"
        b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
        b'data: {"choices":[]}\n\n'
        b"data: [DONE]\n\n"
    )
    assert [text for text in pieces_of(stream) if text] == ["Hi"]


def test_an_answer_that_breaks_off_fails_the_demonstration() -> None:
    """It must not tell of an answer that never came whole."""
    stream = io.BytesIO(b'data: {"error":{"message":"gone"}}\n\n')
    with pytest.raises(DemoFailed, match="gone"):
        list(pieces_of(stream))
