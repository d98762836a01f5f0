"""The `llm` tool's Python side: prints what each way of asking gave."""

import json
import sys

from llm import Prompt, Tool, ToolResult
from llm.default_plugins.openai_models import Chat
from pydantic import BaseModel

base_url, name = sys.argv[1:]
model = Chat("mesh", model_name=name, api_base=base_url, supports_schema=True, supports_tools=True)
model.key = "unused"


class Place(BaseModel):
    name: str
    height_m: int


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


calls = []
chain = model.chain(
    'Weather?\n<<call weather {"city": "Rome"}>>',
    tools=[Tool.function(weather)],
    after_call=lambda _tool, call, _result: calls.append([call.name, call.arguments]),
)
after = chain.text()
structured = model.prompt("Which mountain?", schema=Place).text()
assert Prompt
assert ToolResult
print(
    json.dumps(
        {
            "conversation": model.prompt("Hi\n<<say Hello.>>", stream=False).text(),
            "stream": "".join(model.prompt("Hi\n<<say one two three>>", stream=True)),
            "call": calls[0],
            "after": bool(after),
            "structured": sorted(json.loads(structured)),
        }
    )
)
