"""Run inside a namespace: one plain and one streamed chat through the official client, as JSON."""

import json
import sys

import openai

base_url, model = sys.argv[1:]
question = [{"role": "user", "content": "Name a colour."}]
with openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=20) as client:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=question, max_tokens=16, seed=1, temperature=0
    )
    chunks = client.chat.completions.create(
        model=model, messages=question, max_tokens=16, seed=1, temperature=0, stream=True
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
answer = {
    "node": raw.headers["x-mesh-node"],
    "plain": raw.parse().choices[0].message.content,
    "streamed": streamed,
}
print(json.dumps(answer))
