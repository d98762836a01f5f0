"""Claims of meshd.engine.factory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from meshd.core.ports import EngineError
from meshd.engine.factory import build
from meshd.engine.spec import parse
from tests.engine.mlx_folder import needs_mlx


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


@needs_mlx
def test_an_mlx_folder_is_built_where_mlx_is_installed():
    """As lazily as every other kind."""
    assert build(parse("mlx:/models/x")).name == "mlx"


@pytest.mark.parametrize(("spec", "extra"), [("llamacpp:x.gguf", "llama"), ("mlx:x", "mlx")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, spec, extra):
    """Before anything is started."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EngineError, match=f"the extra `{extra}`"):
        build(parse(spec))


def test_the_daemon_never_imports_llama_cpp_or_numpy():
    """Their memory belongs to the worker process alone."""
    code = (
        "import sys; from meshd.engine.factory import build; from meshd.engine.spec import parse\n"
        "for each in ('emulated:', 'openai:http://a', 'llamacpp:bundled'): build(parse(each))\n"
        "sys.exit(bool({'llama_cpp', 'numpy', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
