"""Instructor, which forces a tool and takes its arguments: prints what it got."""

import json
import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel

base_url, model = sys.argv[1:]
client = instructor.from_openai(OpenAI(base_url=base_url, api_key="unused", max_retries=0))


class Place(BaseModel):
    name: str
    height_m: int


place = client.chat.completions.create(
    model=model,
    response_model=Place,
    max_retries=0,
    messages=[{"role": "user", "content": "Which mountain?"}],
)
print(json.dumps({"structured": sorted(place.model_dump())}))
