"""LiteLLM's three ways to this endpoint: prints what each way of asking gave."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from pydantic import BaseModel

base_url, model = sys.argv[1:]
common = {"api_key": "unused", "num_retries": 0}
chat = {"model": f"openai/{model}", "api_base": base_url, **common}
messages_api = {
    "model": f"anthropic/{model}",
    "api_base": base_url.removesuffix("/v1"),
    "max_tokens": 64,
    **common,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Place(BaseModel):
    name: str
    height_m: int


def turn(content):
    return {"role": "user", "content": content}


def ask(way, *messages, **fields):
    return litellm.completion(messages=list(messages), **way, **fields).choices[0].message


def stream(way, content):
    chunks = litellm.completion(messages=[turn(content)], stream=True, **way)
    return "".join([chunk.choices[0].delta.content or "" for chunk in chunks])


def loop(way):
    question = turn('Weather?\n<<call weather {"city": "Rome"}>>')
    said = ask(way, question, tools=[TOOL])
    (call,) = said.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    after = ask(way, question, said.model_dump(), result, tools=[TOOL])
    return [call.function.name, json.loads(call.function.arguments)], bool(after.content)


def all_of(way):
    call, after = loop(way)
    parsed = ask(way, turn("Which mountain?"), response_format=Place).content
    return {
        "conversation": ask(way, turn("Hi\n<<say Hello.>>")).content,
        "stream": stream(way, "Hi\n<<say one two three>>"),
        "call": call,
        "after": after,
        "structured": sorted(json.loads(parsed)),
    }


by_chat, by_messages = all_of(chat), all_of(messages_api)
assert by_chat == by_messages, (by_chat, by_messages)
print(json.dumps(by_chat))
