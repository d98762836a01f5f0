"""Coding agents and tools of the terminal: aider, Claude Code, Codex, llm, opencode.

Each format comes from its maker's own documentation, named at its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from meshd.ctl.connect.merge import (
    Entry,
    Hold,
    merged_json,
    merged_toml,
    merged_yaml_items,
    merged_yaml_keys,
    toml_lines,
    yaml_items,
    yaml_lines,
)
from meshd.ctl.connect.recipe import (
    KEY_VARIABLE,
    OUTPUT_SHARE,
    PROVIDER,
    Model,
    Recipe,
    Target,
    below,
    lines,
    no_hints,
    pretty,
)

# Codex: developers.openai.com/codex/config-reference (`wire_api` must be "responses")


def _codex_head(target: Target) -> dict[str, Any]:
    head = {"model": target.model.model_id, "model_provider": PROVIDER}
    context = target.model.context_length
    return head | ({"model_context_window": context} if context else {})


def _codex_rows(target: Target) -> dict[str, Any]:
    key = {"env_key": KEY_VARIABLE} if target.key else {}
    rows = {"name": "meshd", "base_url": target.base_url, "wire_api": "responses"}
    return rows | key


def _codex(target: Target) -> str:
    table = [f"[model_providers.{PROVIDER}]", *toml_lines(_codex_rows(target))]
    return lines(*toml_lines(_codex_head(target)), "", *table)


def _merge_codex(text: str, target: Target, _force: bool) -> str:
    table = f"model_providers.{PROVIDER}"
    return merged_toml(text, _codex_head(target), table, _codex_rows(target))


def _hint_codex(target: Target) -> list[str]:
    key = [f"It reads the API key from {KEY_VARIABLE}."] if target.key else []
    run = f"codex -c model_provider={PROVIDER} -m {quote(target.model.model_id)}"
    return [*key, f"Where the file names a model already, that stays the default; then run: {run}"]


# Claude Code: code.claude.com/docs, "LLM gateway" and "Model configuration"


def _claude_variables(target: Target) -> dict[str, str]:
    model = target.model.model_id
    return {
        "ANTHROPIC_BASE_URL": target.root,
        "ANTHROPIC_AUTH_TOKEN": target.key_or_dummy,
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_SUBAGENT_MODEL": model,
    }


def _claude(target: Target) -> str:
    return pretty({"env": _claude_variables(target)})


def _merge_claude(text: str, target: Target, force: bool) -> str:
    variables = _claude_variables(target).items()
    return merged_json(
        text, [Entry(("env", name), value) for name, value in variables], force=force
    )


def _hint_claude(target: Target) -> list[str]:
    short = target.model.told_context < 32_768
    return [
        "These settings send everything of Claude Code to the mesh; take them out to go back.",
        *([f"{target.model.model_id} has a short context: its own prompt is long."] * short),
    ]


# opencode: opencode.ai/docs/providers, "Custom provider"


def _opencode_provider(target: Target) -> dict[str, Any]:
    options = {"baseURL": target.base_url}
    if target.key:
        options["apiKey"] = f"{{env:{KEY_VARIABLE}}}"
    return {
        "npm": "@ai-sdk/openai-compatible",
        "name": "meshd",
        "options": options,
        "models": {model.model_id: _opencode_model(model) for model in target.models},
    }


def _opencode_model(model: Model) -> dict[str, Any]:
    """Unless its modalities say so, opencode takes a model's pictures away."""
    limit = {"context": model.told_context, "output": model.told_context // OUTPUT_SHARE}
    sees = {"modalities": {"input": ["text", "image"], "output": ["text"]}}
    seen = sees if "vision" in model.capabilities else {}
    return {"name": model.model_id, "limit": limit, **seen}


def _opencode_entries(target: Target) -> list[Entry]:
    return [
        Entry(("$schema",), "https://opencode.ai/config.json", Hold.SOFT),
        Entry(("provider", PROVIDER), _opencode_provider(target), Hold.OURS),
        Entry(("model",), f"{PROVIDER}/{target.model.model_id}", Hold.SOFT),
    ]


def _opencode(target: Target) -> str:
    return merged_json("", _opencode_entries(target))


def _merge_opencode(text: str, target: Target, _force: bool) -> str:
    return merged_json(text, _opencode_entries(target))


def _hint_opencode(target: Target) -> list[str]:
    key = [f"It reads the API key from {KEY_VARIABLE}."] if target.key else []
    return [
        *key,
        f"Choose it with /models, or: opencode -m {PROVIDER}/{quote(target.model.model_id)}",
    ]


# For aider see aider.chat/docs/llms/openai-compat and aider.chat/docs/config/aider_conf


def _aider_rows(target: Target) -> dict[str, str]:
    return {
        "openai-api-base": target.base_url,
        "openai-api-key": target.key_or_dummy,
        "model": f"openai/{target.model.model_id}",
    }


def _aider(target: Target) -> str:
    return lines(*yaml_lines(_aider_rows(target)))


def _merge_aider(text: str, target: Target, _force: bool) -> str:
    return merged_yaml_keys(text, _aider_rows(target))


# For llm see llm.datasette.io/en/stable/other-models.html


def _llm_items(target: Target) -> list[dict[str, Any]]:
    flags = {"vision": "vision", "tools": "supports_tools"}
    key = {"api_key_name": PROVIDER} if target.key else {}
    return [
        {
            "model_id": f"{PROVIDER}/{model.model_id}",
            "model_name": model.model_id,
            "api_base": target.base_url,
            **key,
            "supports_schema": True,
            **{flag: True for word, flag in flags.items() if word in model.capabilities},
        }
        for model in target.models
    ]


def _llm(target: Target) -> str:
    return lines(*yaml_items(_llm_items(target)))


def _merge_llm(text: str, target: Target, _force: bool) -> str:
    return merged_yaml_items(text, _llm_items(target), "model_id")


def _hint_llm(target: Target) -> list[str]:
    key = [f"Give it the API key with: llm keys set {PROVIDER}"] if target.key else []
    return [*key, f"Try: llm -m {PROVIDER}/{quote(target.model.model_id)} Hello"]


def _llm_place(env: Mapping[str, str], home: Path, platform: str) -> tuple[Path, ...]:
    usual = home / "Library/Application Support" if platform == "darwin" else home / ".config"
    if platform != "darwin" and env.get("XDG_CONFIG_HOME"):
        usual = Path(env["XDG_CONFIG_HOME"])
    folder = env.get("LLM_USER_PATH") or usual / "io.datasette.llm"
    return (Path(folder) / "extra-openai-models.yaml",)


AIDER = Recipe("aider", _aider, no_hints, below("", "", ".aider.conf.yml"), _merge_aider)
CLAUDE_CODE = Recipe(
    "Claude Code",
    _claude,
    _hint_claude,
    below("CLAUDE_CONFIG_DIR", ".claude", "settings.json"),
    _merge_claude,
)
CODEX = Recipe(
    "Codex CLI", _codex, _hint_codex, below("CODEX_HOME", ".codex", "config.toml"), _merge_codex
)
LLM = Recipe("llm, the command line tool", _llm, _hint_llm, _llm_place, _merge_llm)
OPENCODE = Recipe(
    "opencode",
    _opencode,
    _hint_opencode,
    below("XDG_CONFIG_HOME", ".config", "opencode/opencode.json", "opencode/opencode.jsonc"),
    _merge_opencode,
)
