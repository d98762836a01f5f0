"""Editors, houses, and everything that reads variables.

Each format comes from its maker's own documentation, named at its recipe.
"""

from __future__ import annotations

from meshd.ctl.connect.merge import Entry, Hold, merged_json, own_file, yaml_items, yaml_lines
from meshd.ctl.connect.recipe import (
    KEY_VARIABLE,
    PROVIDER,
    Model,
    Recipe,
    Target,
    below,
    exports,
    lines,
    no_hints,
)

# Variables (the official SDKs' READMEs: openai-python, ollama-python)


def _openai(target: Target) -> str:
    return exports(OPENAI_BASE_URL=target.base_url, OPENAI_API_KEY=target.key_or_dummy)


def _ollama(target: Target) -> str:
    key = {"OLLAMA_API_KEY": target.key} if target.key else {}
    return exports(OLLAMA_HOST=target.root, **key)


# Continue: docs.continue.dev/reference (config.yaml)


def _continue(target: Target) -> str:
    models = yaml_items(
        [
            {
                "name": f"mesh {model.model_id}",
                "provider": "openai",
                "model": model.model_id,
                "apiBase": target.base_url,
                "apiKey": target.key_or_dummy,
                "roles": ["chat", "edit", "apply"],
                **_continue_capabilities(model),
            }
            for model in target.models
        ]
    )
    head = {"name": "mesh", "version": "1.0.0", "schema": "v1"}
    return lines(*yaml_lines(head), "models:", *[f"  {line}" for line in models])


def _continue_capabilities(model: Model) -> dict[str, list[str]]:
    """It guesses them from names it knows: any other model has no agent mode and sees nothing."""
    words = {"tools": "tool_use", "vision": "image_input"}
    told = [word for own, word in words.items() if own in model.capabilities]
    return {"capabilities": told} if told else {}


def _merge_continue(text: str, target: Target, force: bool) -> str:
    return own_file(text, _continue(target), force=force)


# Zed: zed.dev/docs/ai/use-a-local-model and .../use-api-access, "OpenAI API compatible"


def _zed_entries(target: Target) -> list[Entry]:
    models = [
        {
            "name": model.model_id,
            "display_name": f"{model.model_id} (mesh)",
            "max_tokens": model.told_context,
            "capabilities": {
                "tools": "tools" in model.capabilities,
                "images": "vision" in model.capabilities,
                "parallel_tool_calls": "tools" in model.capabilities,
                "prompt_cache_key": True,
            },
        }
        for model in target.models
    ]
    provider = {"api_url": target.base_url, "available_models": models}
    return [Entry(("language_models", "openai_compatible", PROVIDER), provider, Hold.OURS)]


def _zed(target: Target) -> str:
    return merged_json("", _zed_entries(target))


def _merge_zed(text: str, target: Target, _force: bool) -> str:
    return merged_json(text, _zed_entries(target))


def _hint_zed(target: Target) -> list[str]:
    return [f"Zed wants a key: start it with {KEY_VARIABLE}={target.key_or_dummy} set."]


# What is set in a client's own screens (the vendors' documentation of the same names)


def _open_webui(target: Target) -> str:
    return lines(
        "docker run -d -p 3000:8080 -v open-webui:/app/backend/data \\",
        "  --add-host=host.docker.internal:host-gateway \\",
        f"  -e OPENAI_API_BASE_URLS={target.base_url} \\",
        f"  -e OPENAI_API_KEYS={target.key_or_dummy} \\",
        "  --name open-webui ghcr.io/open-webui/open-webui:main",
    )


def _hint_elsewhere(target: Target) -> list[str]:
    return [
        f"It usually runs in a container or on another machine, where {target.root} must be an",
        "address of this one. A node answers other machines once it has API keys:",
        "`meshctl keys add NAME`, then `meshd run --http 0.0.0.0:8787`.",
    ]


def _home_assistant(target: Target) -> str:
    return lines(
        "Settings > Devices & services > Add integration > Ollama",
        f"  URL:     {target.root}",
        *([f"  API key: {target.key}"] if target.key else []),
        f"  Model:   {target.model.model_id}",
        "Then Settings > Voice assistants, and choose it as the conversation agent.",
    )


def _cursor(target: Target) -> str:
    return lines(
        "Cursor Settings > Models > API keys",
        f"  OpenAI API key:           {target.key_or_dummy}",
        "  Override OpenAI base URL: https://YOUR-PUBLIC-NAME/v1",
        f"  Add model:                {target.model.model_id}",
    )


def _hint_cursor(target: Target) -> list[str]:
    return [
        f"Cursor asks from its maker's servers, which cannot reach {target.root}: it needs a",
        "public HTTPS name for this node, API keys turned on, and your trust in both.",
    ]


OPENAI = Recipe("anything that uses OpenAI's SDKs (variables)", _openai, no_hints)
OLLAMA = Recipe("anything that speaks to Ollama (variables)", _ollama, no_hints)
CONTINUE = Recipe(
    "Continue (VS Code, JetBrains)",
    _continue,
    no_hints,
    below("CONTINUE_GLOBAL_DIR", ".continue", "config.yaml"),
    _merge_continue,
)
CURSOR = Recipe("Cursor (only over a public name)", _cursor, _hint_cursor)
HOME_ASSISTANT = Recipe("Home Assistant (by hand)", _home_assistant, _hint_elsewhere)
OPEN_WEBUI = Recipe("Open WebUI (a container's command)", _open_webui, _hint_elsewhere)
ZED = Recipe(
    "Zed", _zed, _hint_zed, below("XDG_CONFIG_HOME", ".config", "zed/settings.json"), _merge_zed
)
