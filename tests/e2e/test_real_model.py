"""SmolLM2's own words, through a node that has no model."""

import openai
import pytest

from tests.e2e.daemons import wait_until

MODEL = "smollm2-135m-instruct"
LOAD_LIMIT_S = 60
"""A cold disk and a busy machine; usually two seconds."""


@pytest.fixture
def entry(launch):
    """An entry node without engines, beside one with the embedded model, warm."""
    serving = launch("serving", "--engine", "llamacpp:bundled,threads=1").wait_ready()
    entry = launch("entry", "--peer", serving.peer).wait_ready()

    def warm():
        return any(
            row["id"] == MODEL and row["status"]["value"] == "loaded"
            for row in entry.get("/v1/models")["data"]
        )

    wait_until(warm, LOAD_LIMIT_S, "the model is loaded and known to the entry node")
    return entry


@pytest.mark.timeout(120)
def test_a_real_model_answers_through_another_node(entry):
    """A greedy completion of a stable prompt, then a chat, plain and streamed, all the same."""
    with openai.OpenAI(base_url=entry.base_url, api_key="unused", max_retries=0) as client:
        completion = client.completions.create(
            model=MODEL, prompt="The capital of France is", max_tokens=1, temperature=0
        )
        asked = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
            "max_tokens": 24,
        }
        plain = client.chat.completions.with_raw_response.create(**asked)
        chunks = list(
            client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
        )
    answer = plain.parse()
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert completion.choices[0].text == " Paris"
    assert plain.headers["x-mesh-node"] == "serving"
    assert streamed == answer.choices[0].message.content
    assert "Paris" in streamed
    assert answer.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
