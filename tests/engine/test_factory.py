"""Claims of meshd.engine.factory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from meshd.core.ports import EngineError
from meshd.engine.factory import build
from meshd.engine.spec import parse


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("emulated:name=big", "emulated big"),
        ("openai:http://127.0.0.1:9", "upstream http://127.0.0.1:9"),
        ("llamacpp:bundled", "llamacpp"),
        ("llamacpp:~/missing.gguf,slots=2", "llamacpp"),
    ],
)
def test_each_kind_is_built(spec, name):
    """Nothing is started, and no file is opened, before `start`."""
    assert build(parse(spec)).name == name


def test_a_kind_that_is_not_there_yet_says_so():
    """With what to use instead."""
    with pytest.raises(EngineError, match="llamacpp:PATH"):
        build(parse("mlx:/models/x"))


def test_the_daemon_never_imports_llama_cpp_or_numpy():
    """Their memory belongs to the worker process alone."""
    code = (
        "import sys; from meshd.engine.factory import build; from meshd.engine.spec import parse\n"
        "for each in ('emulated:', 'openai:http://a', 'llamacpp:bundled'): build(parse(each))\n"
        "sys.exit(bool({'llama_cpp', 'numpy', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
