"""Claims of meshd.engine.bundled."""

from __future__ import annotations

import sys

import pytest

from meshd.core.ports import EngineError
from meshd.engine.bundled import PACKAGE, bundled_gguf


def test_the_bundled_model_is_found_without_importing_its_package():
    """The package is a plug-in of another program: its code is not run."""
    assert bundled_gguf().suffix == ".gguf"
    assert PACKAGE not in sys.modules


@pytest.mark.parametrize("package", ["no_such_package", "json"])
def test_a_missing_model_says_what_to_install(package):
    """Neither an absent package nor one without a model is a crash."""
    with pytest.raises(EngineError, match="extra `llama`"):
        bundled_gguf(package)
