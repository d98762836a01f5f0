"""Ollama's official client and `meshctl run`, at a node that has no model itself."""

import json
import os
import subprocess
import sys

import ollama
import pytest

from tests.e2e.daemons import wait_until

MODEL = "smollm2-135m-instruct"
LOAD_LIMIT_S = 60
"""A cold disk and a busy machine; usually two seconds."""

CONTEXT = 1024
"""Where no limit is asked for, a small model now and then talks until its context is full."""

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "num_predict": 24, "num_ctx": CONTEXT}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture
def entry(launch):
    """An entry node without engines, beside one with the embedded model."""
    serving = launch(
        "serving", "--engine", f"llamacpp:bundled,ctx={CONTEXT},threads=1"
    ).wait_ready()
    entry = launch("entry", "--peer", serving.peer).wait_ready()
    wait_until(lambda: entry.get("/v1/models")["data"], LOAD_LIMIT_S, "entry lists the model")
    return entry


@pytest.mark.timeout(120)
def test_a_real_model_speaks_ollama_through_another_node(entry):
    """Loaded, asked whole and in a stream, in a form; and found by every name it has."""
    with ollama.Client(f"http://127.0.0.1:{entry.http_port}", timeout=100) as client:
        assert client.generate(MODEL).done_reason == "load"
        warm = [f"{MODEL}:latest"]
        wait_until(lambda: [model.model for model in client.ps().models] == warm, 10, "it is told")
        assert "completion" in client.show(f"{MODEL}:latest").capabilities
        whole = client.chat(f"{MODEL}:latest", QUESTION, options=GREEDY)
        parts = list(client.chat(MODEL, QUESTION, options=GREEDY, stream=True))
        assert "Paris" in whole.message.content
        assert "".join([part.message.content for part in parts]) == whole.message.content
        assert parts[-1].eval_count == whole.eval_count
        assert parts[-1].prompt_eval_duration + parts[-1].eval_duration <= parts[-1].total_duration
        formed = client.chat(MODEL, QUESTION, options=GREEDY, format=SCHEMA)
        assert list(json.loads(formed.message.content)) == ["city"]
        with pytest.raises(ollama.ResponseError) as caught:
            client.chat("gpt-9", QUESTION)
        assert caught.value.status_code == 404


@pytest.mark.timeout(120)
def test_meshctl_run_asks_the_same_model(entry):
    """One answer on stdout, and who gave it."""
    url = f"http://127.0.0.1:{entry.http_port}"
    done = subprocess.run(
        [sys.executable, "-m", "meshd.ctl", "run", MODEL, "--json", "--node", url, "Say hello."],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("MESH")},
    )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["node"] == "serving"
    assert body["text"]
    assert body["completion_tokens"] > 0
