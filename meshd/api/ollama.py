"""Ollama's two verbs, `/api/chat` and `/api/generate`, to one `Job` and back.

What sets this dialect apart: `stream` is true unless said otherwise; a stream is JSON objects, one
to a line, with no word for "still here"; sampling stands in `options`; and a request without words
asks for the model to be loaded. That last one runs the smallest job there is, one token that nobody
sees, so that the router picks the machine and its engine loads the model as it would for a person.

Where the last message is the assistant's own text, the model goes on from it and only what is new
comes back, as at Ollama: chat programs have a button for it.

Refused rather than left out: a `template` of the client's own and `suffix` (the chat template
belongs to the model's node), `context` (token ids of an earlier answer mean nothing on another
machine; none is ever given out), and unloading (`keep_alive` 0 without words): who asks a mesh must
not take a model from others. `keep_alive` is otherwise without effect, and the header
`x-mesh-left-out` says so: a model stays until its memory is needed. The same header names fields
that Ollama does not have either: engines' own switches belong into `options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from meshd.api.body import check_free_form
from meshd.api.dialect import NDJSON_LINES, Asked, Asker, Dialect
from meshd.api.errors import ApiError, missing, unsupported
from meshd.api.fields import Fields
from meshd.api.job import session_key
from meshd.api.ollama_answer import CHAT_WORDS, GENERATE_WORDS, OllamaAnswer, OllamaStream
from meshd.api.ollama_options import (
    read_format,
    read_keep_alive,
    read_logprobs,
    read_options,
    read_think,
    unused_lines,
)
from meshd.api.ollama_turns import read_turns, user_turn
from meshd.api.tools import read_tools
from meshd.api.turns import BEGUN, is_begun
from protocol import limits
from protocol.jobs import Job

NEVER_CUT = ("truncate", "shift")
"""Whether a prompt or an answer that does not fit may be cut: it never is, so these need no more
than to be booleans."""

PARALLEL = "parallel_tool_calls"
"""What `read_tools` leaves for the engine; no field of Ollama's, but some clients send it."""

LOADING_TURN = ({"role": "user", "content": "Hi"},)
"""What a model is asked that is only to be loaded."""


class OllamaAsked(Asked, frozen=True):
    """A request, and whether it only asks for the model to be loaded."""

    loads: bool = False


def read_chat(body: Mapping[str, Any], asker: Asker) -> OllamaAsked:
    """The body of `/api/chat`. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    turns = read_turns(fields.take("messages"))
    box = read_tools(fields)
    words = {"messages": turns, "tools": box.tools, "tool_choice": box.choice}
    return _asked(fields, asker, model, is_empty=not turns, **words)


def read_generate(body: Mapping[str, Any], asker: Asker) -> OllamaAsked:
    """The body of `/api/generate`. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    prompt = fields.text("prompt", limits.JOB_MAX_BYTES) or ""
    system = fields.text("system", limits.JOB_MAX_BYTES) or ""
    images = fields.array("images")
    is_raw = fields.flag("raw")
    _refuse(fields)
    if not is_raw:
        head = ({"role": "system", "content": system},) if system else ()
        turns = (*head, user_turn(prompt, images))
        return _asked(fields, asker, model, is_empty=not prompt and not images, messages=turns)
    for name, value in (("system", system), ("images", images)):
        if value:
            raise unsupported(name, f"'{name}' and 'raw' exclude each other: raw is text as it is.")
    return _asked(fields, asker, model, is_empty=not prompt, kind="completion", prompt=prompt)


def read_model(fields: Fields) -> str:
    """Takes the model's name out of a body (`name` is its older field). Raises ApiError (400)."""
    older = fields.text("name", limits.TEXT_MAX_CHARS)
    model = fields.text("model", limits.TEXT_MAX_CHARS) or older
    if not model:
        raise missing("model", "'model' is missing. GET /api/tags lists what can be asked for.")
    return model


def refuse(error: ApiError, _request_id: str) -> tuple[int, bytes]:
    """An error in Ollama's shape: a status, and one sentence."""
    return error.status, msgspec.json.encode({"error": error.message})


def _asked(
    fields: Fields, asker: Asker, model: str, *, is_empty: bool, **words: Any
) -> OllamaAsked:
    """What all of Ollama's requests share. `words` are the fields of the job that are not shared;
    `is_empty` says that there are no words to answer."""
    options = read_options(fields)
    stream = fields.take("stream")
    if stream is not None and type(stream) is not bool:
        raise fields.wrong("stream", "true or false", stream)
    keep_alive = read_keep_alive(fields.take("keep_alive"))
    if is_empty and keep_alive == 0:
        raise _no_unloading()
    response_format = read_format(fields.take("format"))
    think = read_think(fields.take("think"))
    logprobs, top_logprobs = read_logprobs(fields)
    for name in NEVER_CUT:
        fields.flag(name)
    parallel = fields.take(PARALLEL)
    extras = {**options.extras, **think, **({PARALLEL: parallel} if parallel is not None else {})}
    if is_begun(words.get("messages", ())):
        extras |= BEGUN
    job = Job(
        **({"kind": "chat"} | words),
        request_id=asker.request_id,
        model=model,
        response_format=response_format,
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        max_tokens=options.max_tokens,
        stop=options.stop,
        sampling=options.sampling,
        stream=stream is not False,
        extras=extras or None,
        session=session_key(asker.session),
        person=asker.person,
        priority=asker.priority,
    )
    lines = unused_lines(keep_alive, options, fields.rest)
    return OllamaAsked(_loading(job) if is_empty else job, lines=lines, loads=is_empty)


def _loading(job: Job) -> Job:
    """The smallest job that has the model loaded."""
    return Job(
        request_id=job.request_id,
        kind="chat",
        model=job.model,
        messages=LOADING_TURN,
        max_tokens=1,
        session=job.session,
        person=job.person,
        priority=job.priority,
    )


def _refuse(fields: Fields) -> None:
    if fields.text("template", limits.JOB_MAX_BYTES):
        raise unsupported(
            "template",
            "'template' is not served: the model's own is used. Send 'raw': true with a prompt "
            "that is already in the model's format.",
        )
    if fields.text("suffix", limits.JOB_MAX_BYTES):
        raise unsupported(
            "suffix",
            "'suffix' is not served. Send 'raw': true with your model's own fill-in-the-middle "
            "marks in 'prompt'.",
        )
    if fields.array("context"):
        raise unsupported(
            "context",
            "'context' is not served: token ids of one machine mean nothing on another. Send the "
            "conversation to /api/chat.",
        )


def _no_unloading() -> ApiError:
    return unsupported(
        "keep_alive",
        "A model of the mesh is not unloaded by who asks it: others may be using it, and its "
        "memory is given back when it is needed. The owner of the machine that holds it can run "
        "`meshctl models unload MODEL` there.",
    )


OLLAMA_CHAT: Dialect[OllamaAsked] = Dialect(
    read=read_chat,
    stream=lambda _asked, opening: OllamaStream(opening, CHAT_WORDS),
    whole=lambda asked, opening: OllamaAnswer(opening, CHAT_WORDS, loads=asked.loads),
    refuse=refuse,
    stream_lines=NDJSON_LINES,
)

OLLAMA_GENERATE: Dialect[OllamaAsked] = Dialect(
    read=read_generate,
    stream=lambda _asked, opening: OllamaStream(opening, GENERATE_WORDS),
    whole=lambda asked, opening: OllamaAnswer(opening, GENERATE_WORDS, loads=asked.loads),
    refuse=refuse,
    stream_lines=NDJSON_LINES,
)
