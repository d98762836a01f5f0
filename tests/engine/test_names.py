"""Claims of meshd.engine.names."""

from __future__ import annotations

import pytest

from meshd.engine.names import model_name


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1", "smollm2-135m-instruct"),
        ("Qwen3-8B-Q4_K_M", "qwen3-8b"),
        ("Llama-3.1-70B-Instruct-IQ2_XXS-00001-of-00003", "llama-3.1-70b-instruct"),
        ("gemma-3-270m-it-F16", "gemma-3-270m-it"),
        ("model-UD-Q5_K_XL", "model"),
        ("Qwen3-8B-4bit", "qwen3-8b"),
        ("Llama-3.2-3B-Instruct-8bit", "llama-3.2-3b-instruct"),
        ("Qwen3-4B-4bit-DWQ", "qwen3-4b"),
        ("gemma-3-4b-it-6-bit", "gemma-3-4b-it"),
        ("plain", "plain"),
        ("Q4_0", "q4_0"),
    ],
)
def test_a_model_is_named_without_its_quantisation(stem, name):
    """Two machines with differently squeezed files offer the same model."""
    assert model_name(stem) == name
