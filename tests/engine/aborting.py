"""A process that fails as ggml does when an assertion does not hold: `python -m`."""

from __future__ import annotations

from llama_cpp import llama_cpp

if __name__ == "__main__":
    llama_cpp._lib.ggml_abort(b"odd.cpp", 7, b"GGML_ASSERT(it is even) failed")
