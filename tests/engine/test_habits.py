"""What servers say, as recorded from them, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine import habits
from protocol.jobs import Job
from protocol.load import ModelRecord

TAGS = {
    "models": [
        {
            "name": "llama3.2:latest",
            "model": "llama3.2:latest",
            "modified_at": "2025-05-04T17:37:44.706015396-07:00",
            "size": 3825819519,
            "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "llama",
                "families": ["llama"],
                "parameter_size": "3.2B",
                "quantization_level": "Q4_K_M",
            },
        },
        {"name": "nomic-embed-text:latest", "digest": "0a109f422b47", "size": 274302450},
    ]
}
PS = {
    "models": [
        {
            "name": "llama3.2:latest",
            "size": 5137025024,
            "digest": "a80c4f17acd5",
            "expires_at": "2024-06-04T14:38:31.83753-07:00",
            "size_vram": 5137025024,
            "context_length": 16384,
        }
    ]
}
SHOW = {
    "parameters": 'num_keep                       24\nstop                           "<|eot_id|>"',
    "template": "{{ .System }}",
    "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
    "capabilities": ["completion", "tools"],
}
EMBED = {"model_info": {"nomic-bert.context_length": 2048}, "capabilities": ["embedding"]}
LM_STUDIO = {
    "object": "list",
    "data": [
        {
            "id": "qwen2-vl-7b-instruct",
            "object": "model",
            "type": "vlm",
            "publisher": "mlx-community",
            "arch": "qwen2_vl",
            "compatibility_type": "mlx",
            "quantization": "4bit",
            "state": "not-loaded",
            "max_context_length": 32768,
        },
        {
            "id": "granite-3.0-2b-instruct",
            "object": "model",
            "type": "llm",
            "publisher": "lmstudio-community",
            "quantization": "Q4_K_M",
            "state": "loaded",
            "max_context_length": 131072,
            "loaded_context_length": 4096,
            "capabilities": ["tool_use"],
        },
        {"id": "text-embedding-nomic", "type": "embeddings", "state": "not-loaded"},
    ],
}
LLAMA = {
    "object": "list",
    "data": [
        {
            "id": "/models/SmolLM2-135M-Instruct.Q4_1.gguf",
            "object": "model",
            "created": 1735142223,
            "owned_by": "llamacpp",
            "meta": {"vocab_type": 2, "n_vocab": 49152, "n_ctx_train": 8192, "size": 98000000},
        }
    ],
}
PROPS = {
    "default_generation_settings": {"n_ctx": 2048, "params": {}},
    "total_slots": 3,
    "model_path": "/models/SmolLM2-135M-Instruct.Q4_1.gguf",
    "chat_template": "{% if tools %}{{ tools }}{% endif %}",
    "modalities": {"vision": False, "audio": False},
}
VLLM = {
    "object": "list",
    "data": [
        {
            "id": "Qwen/Qwen3-8B",
            "object": "model",
            "owned_by": "vllm",
            "root": "Qwen/Qwen3-8B",
            "max_model_len": 40960,
        }
    ],
}
OURS = {"object": "list", "data": [{"id": "m", "owned_by": "meshd"}]}


def ollama(running: Any = PS):
    tags = habits.ollama_tags(TAGS)
    assert tags is not None
    digests = [digest for digest, _ in tags.values()]
    shown = dict(zip(digests, map(habits.ollama_show, (SHOW, EMBED)), strict=True))
    return habits.ollama_listed(tags, shown, habits.ollama_running(running))


def test_ollamas_loaded_model_has_the_context_it_runs_with() -> None:
    """And its name without the tag that Ollama adds; models for vectors are left out."""
    (listed,) = ollama()
    assert (listed.record.model_id, listed.record.aliases) == ("llama3.2", ("llama3.2:latest",))
    assert (listed.record.context_length, listed.is_warm) == (16_384, True)
    assert listed.record.capabilities == ("chat", "completion", "tools")
    assert listed.record.quantisation == "Q4_K_M"
    assert listed.served_name == "llama3.2:latest"


def test_what_ollama_runs_on_the_internet_is_not_taken_for_this_machines() -> None:
    """Nobody's question leaves the house because a machine in it has an account there."""
    remote = {"remote_model": "gpt-oss:120b", "remote_host": "https://ollama.com:443"}
    cloud = {"name": "gpt-oss:120b-cloud", "digest": "569662207105", "size": 384} | remote
    tags = habits.ollama_tags({"models": [cloud, *TAGS["models"]]})
    assert tags is not None
    assert tags.keys() == {"llama3.2:latest", "nomic-embed-text:latest"}


def test_ollamas_cold_model_has_the_context_it_will_get() -> None:
    """Not what it was made for: a longer prompt would be cut without a word."""
    (listed,) = ollama(running={"models": []})
    assert (listed.record.context_length, listed.is_warm) == (4096, False)
    told = habits.ollama_show(SHOW | {"parameters": "num_ctx                        32768\nx 1"})
    assert told.running_context == 32_768


def test_lm_studio_tells_state_and_both_contexts() -> None:
    """What is loaded before what is possible; its words for abilities become ours."""
    listed = habits.lm_studio(LM_STUDIO)
    assert listed is not None
    eyes, granite = listed
    assert (eyes.is_warm, eyes.record.context_length) == (False, 32_768)
    assert eyes.record.capabilities == ("chat", "completion", "vision")
    assert eyes.record.aliases == ("mlx-community/qwen2-vl-7b-instruct",)
    assert (granite.is_warm, granite.record.context_length) == (True, 4096)
    assert granite.record.capabilities == ("chat", "completion", "tools")


def test_llama_server_gets_the_name_people_use() -> None:
    """The path it goes by is an alias, and what it is asked for by."""
    listed = habits.llama_server(LLAMA)
    assert listed is not None
    (one,), slots = habits.llama_props(listed, PROPS)
    assert one.record.model_id == "smollm2-135m-instruct"
    assert "SmolLM2-135M-Instruct.Q4_1" in one.record.aliases
    assert one.served_name == "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (one.record.context_length, slots) == (2048, 3)
    assert one.record.capabilities == ("chat", "completion", "tools")


def test_llama_server_as_a_router_says_which_are_loaded() -> None:
    """Its properties are those of one model, and do not belong to several."""
    rows = [
        {"id": name, "owned_by": "llamacpp", "status": {"value": value}}
        for name, value in (("a", "loaded"), ("b", "unloaded"))
    ]
    listed = habits.llama_server({"data": rows})
    assert listed is not None
    both, slots = habits.llama_props(listed, PROPS)
    assert [each.is_warm for each in both] == [True, False]
    assert slots == 0


def test_vllm_says_how_long_a_prompt_may_be() -> None:
    """`max_model_len`."""
    (listed,) = habits.vllm(VLLM) or ()
    assert (listed.record.model_id, listed.record.context_length) == ("Qwen/Qwen3-8B", 40_960)


@pytest.mark.parametrize("read", [habits.llama_server, habits.vllm, habits.lm_studio])
def test_a_node_of_this_mesh_is_not_adopted(read: Any) -> None:
    """It would offer its own models to itself."""
    assert read(OURS) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "models", "name", "id", "digest", "state", "owned_by", "details"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_answer_is_a_list_or_none(answer: Any) -> None:
    """Whoever sits on that port."""
    for read in (habits.vllm, habits.lm_studio, habits.llama_server):
        listed = read(answer)
        habits.llama_props(listed or (), answer)
    tags = habits.ollama_tags(answer) or {}
    shown = {digest: habits.ollama_show(answer) for digest, _ in tags.values()}
    assert len(habits.ollama_listed(tags, shown, habits.ollama_running(answer))) <= 64


def test_llama_servers_model_has_the_senses_that_it_names() -> None:
    """Each of them by itself."""
    listed = habits.llama_server(LLAMA)
    assert listed is not None
    seen = {
        word: habits.llama_props(listed, PROPS | {"modalities": {word: True}})[0][0].record
        for word in ("vision", "audio")
    }
    assert "vision" in seen["vision"].capabilities
    assert "audio" not in seen["vision"].capabilities
    assert "audio" in seen["audio"].capabilities


@pytest.mark.parametrize(
    ("extras", "told"),
    [
        ({"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none", "mirostat": 2}, {"reasoning_effort": "none", "mirostat": 2}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {}),
        ({"reasoning_effort": 7}, {}),
    ],
)
def test_how_much_to_think_is_told_in_ollamas_words(extras, told):
    """It refuses all others, and does not read the switches of a template."""
    job = Job("r", "chat", "m", extras=extras)
    assert (
        habits.ollama_job(job, ModelRecord("m", "ollama", capabilities=("thinking",))).extras
        == told
    )


def test_a_model_that_cannot_think_is_not_told_how_much_to():
    """Ollama would refuse the request; coding agents name an effort with each."""
    job = Job("r", "chat", "m", extras={"reasoning_effort": "high"})
    assert habits.ollama_job(job, ModelRecord("m", "ollama", capabilities=("chat",))).extras == {}


@pytest.mark.parametrize("extras", [None, {"mirostat": 2}])
def test_whoever_says_nothing_of_thinking_is_asked_as_he_asked(extras):
    """Nothing is made up."""
    job = Job("r", "chat", "m", extras=extras)
    assert habits.ollama_job(job, ModelRecord("m", "ollama")) is job
