"""The official OpenAI client of the environment, chat: prints what each way of asking gave."""

import json
import sys

from openai import OpenAI
from pydantic import BaseModel

base_url, model = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0)
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


def ask(*messages, **fields):
    answer = client.chat.completions.create(model=model, messages=list(messages), **fields)
    return answer.choices[0].message


def stream(content):
    chunks = client.chat.completions.create(model=model, messages=[turn(content)], stream=True)
    return "".join([chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices])


question = turn('Weather?\n<<call weather {"city": "Rome"}>>')
said = ask(question, tools=[TOOL])
(call,) = said.tool_calls
result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
parsed = client.chat.completions.parse(
    model=model, messages=[turn("Which mountain?")], response_format=Place
)
print(
    json.dumps(
        {
            "conversation": ask(turn("Hi\n<<say Hello.>>")).content,
            "stream": stream("Hi\n<<say one two three>>"),
            "call": [call.function.name, json.loads(call.function.arguments)],
            "after": bool(ask(question, said, result, tools=[TOOL]).content),
            "structured": sorted(parsed.choices[0].message.parsed.model_dump()),
        }
    )
)
