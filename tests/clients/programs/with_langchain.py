"""LangChain's OpenAI chat model: prints what each way of asking gave."""

import json
import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

base_url, model = sys.argv[1:]
chat = ChatOpenAI(base_url=base_url, api_key="unused", model=model, max_retries=0)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Place(BaseModel):
    """A mountain."""

    name: str
    height_m: int


question = HumanMessage('Weather?\n<<call weather {"city": "Rome"}>>')
agent = chat.bind_tools([weather])
said = agent.invoke([question])
(call,) = said.tool_calls
result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
parsed = chat.with_structured_output(Place).invoke("Which mountain?")
print(
    json.dumps(
        {
            "conversation": chat.invoke("Hi\n<<say Hello.>>").content,
            "stream": "".join([part.content for part in chat.stream("Hi\n<<say one two three>>")]),
            "call": [call["name"], call["args"]],
            "after": bool(agent.invoke([question, said, result]).content),
            "structured": sorted(parsed.model_dump()),
        }
    )
)
