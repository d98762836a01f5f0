"""A request in its normal form, and the events that answer it.

A `Job` is what every HTTP dialect is translated into, what the router weighs, what an engine runs
and what crosses the relay: one declaration for all four, so nothing is lost between them. The
answer is a stream of events that ends with exactly one `Finish` or one `Failure`; no later version
adds another ending, because a receiver skips the events it does not know.

`LONG_TEXT` is bounded by a whole job. An event crosses in one relay frame, which is smaller: its
sender cuts longer text into several deltas, whose texts concatenate.

Left out on purpose: the client's credentials (they never leave the node they entered), and
anything about how the answer is to be printed, which stays with the dialect.
"""

from __future__ import annotations

from typing import Any

from protocol import limits
from protocol.fields import (
    Bool,
    Bytes,
    Choice,
    Float,
    Int,
    Json,
    ListOf,
    Optional,
    Pair,
    Record,
    Text,
    Tokens,
    Union,
    record,
    wire,
)
from protocol.scalars import TOKEN_ID_MAX

JOB_KINDS = ("chat", "completion", "embedding", "raw")
PRIORITIES = ("interactive", "batch")
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
FAILURES = (
    "bad_request",
    "context_length_exceeded",
    "model_not_found",
    "unsupported",
    "overloaded",
    "insufficient_memory",
    "draining",
    "engine_failed",
    "unreachable",
    "timeout",
    "cancelled",
    "rate_limited",
    "unauthorized",
)

LONG_TEXT = Text(limits.JOB_MAX_BYTES)
LINE = Text(limits.TEXT_MAX_CHARS)
COUNT = Int(0, 2**31 - 1)
SECONDS = Float(0.0, 1e9)


@record
class Sampling:
    """How to choose tokens. None means the engine's own default."""

    temperature: float | None = wire(Optional(Float(0.0, 100.0)), default=None)
    top_p: float | None = wire(Optional(Float(0.0, 1.0)), default=None)
    top_k: int | None = wire(Optional(COUNT), default=None)
    min_p: float | None = wire(Optional(Float(0.0, 1.0)), default=None)
    presence_penalty: float | None = wire(Optional(Float(-100.0, 100.0)), default=None)
    frequency_penalty: float | None = wire(Optional(Float(-100.0, 100.0)), default=None)
    repeat_penalty: float | None = wire(Optional(Float(0.0, 100.0)), default=None)
    seed: int | None = wire(Optional(Int(-(2**63), 2**64 - 1)), default=None)
    logit_bias: tuple[tuple[int, float], ...] = wire(
        ListOf(Pair(Int(0, TOKEN_ID_MAX), Float(-1e9, 1e9)), limits.LOGIT_BIAS_MAX), default=()
    )


NO_WISHES = Sampling()
"""Of most jobs: the engine's own defaults."""


@record
class RawRequest:
    """An HTTP request for one of the owner's own servers, in a form that no dialect here reads:
    speech, pictures, whatever comes next. `path` starts with `/v1/`; headers do not travel."""

    path: str = wire(Text(limits.TEXT_MAX_CHARS, shortest=1))
    content_type: str = wire(LINE)
    body: bytes = wire(Bytes(limits.JOB_MAX_BYTES))


@record
class Job:
    """One request.

    `messages` holds chat turns as OpenAI's chat objects; `prompt` the text of a completion;
    `prompt_tokens` a prompt already in token ids. `extras` are engine-specific fields passed on
    untouched. `hops` is 0 where the client asked and 1 after forwarding: it never reaches 2.
    `prefix_text` and `prefix_tokens` are the beginning of an answer that is to be gone on with,
    `prefix_thought` what was thought before it, or so far.
    `person` says whose share of the mesh this is: a hash, the same on every node, never a key.
    `deadline_s` is always 0 and nobody reads it.
    A `raw` job holds nothing but `raw`, and the model where one was named.
    """

    request_id: str = wire(Text(limits.REQUEST_ID_MAX_CHARS, shortest=1))
    kind: str = wire(Choice(*JOB_KINDS))
    model: str = wire(Text(limits.TEXT_MAX_CHARS, shortest=1))
    messages: tuple[Any, ...] = wire(ListOf(Json(), limits.MESSAGES_MAX), default=())
    prompt: str | None = wire(Optional(LONG_TEXT), default=None)
    prompt_tokens: tuple[int, ...] | None = wire(Optional(Tokens()), default=None)
    max_tokens: int | None = wire(Optional(COUNT), default=None)
    stop: tuple[str, ...] = wire(
        ListOf(Text(limits.DETAIL_MAX_CHARS, shortest=1), limits.STOP_SEQUENCES_MAX), default=()
    )
    sampling: Sampling = wire(Record(Sampling), default=NO_WISHES)
    stream: bool = wire(Bool(), default=False)
    tools: Any = wire(Optional(Json()), default=None)
    tool_choice: Any = wire(Optional(Json()), default=None)
    response_format: Any = wire(Optional(Json()), default=None)
    logprobs: bool = wire(Bool(), default=False)
    top_logprobs: int = wire(COUNT, default=0)
    inputs: tuple[Any, ...] = wire(ListOf(Json(), limits.MESSAGES_MAX), default=())
    extras: Any = wire(Optional(Json()), default=None)
    priority: str = wire(Choice(*PRIORITIES, otherwise="interactive"), default="interactive")
    session: str = wire(LINE, default="")
    hops: int = wire(Int(0, 255), default=0)
    deadline_s: float = wire(SECONDS, default=0.0)
    prefix_text: str = wire(LONG_TEXT, default="")
    prefix_tokens: tuple[int, ...] | None = wire(Optional(Tokens()), default=None)
    person: str = wire(LINE, default="")
    raw: RawRequest | None = wire(Optional(Record(RawRequest)), default=None)
    prefix_thought: str = wire(LONG_TEXT, default="")


@record
class TextDelta:
    """More of the answer. `token_ids` are the tokens this text came from, where known.

    `logprobs` holds OpenAI's logprob objects, one per token, when the job asked for them.
    """

    text: str = wire(LONG_TEXT)
    token_ids: tuple[int, ...] = wire(Tokens(), default=())
    logprobs: Any = wire(Optional(Json()), default=None)


@record
class ReasoningDelta:
    """More of the model's thinking, where the model marks it."""

    text: str = wire(LONG_TEXT)


@record
class ToolCallDelta:
    """A piece of tool call number `index`: `call_id` and `name` first, then `arguments`."""

    index: int = wire(COUNT)
    call_id: str = wire(LINE)
    name: str = wire(LINE)
    arguments: str = wire(LONG_TEXT)


@record
class Vector:
    """The embedding of input `index`: little-endian 32-bit floats."""

    index: int = wire(COUNT)
    values: bytes = wire(Bytes(limits.VECTOR_MAX_BYTES))


@record
class Finish:
    """The answer is whole. Token counts are the engine's; times are measured, 0 when unknown.
    `stop` is the job's stop sequence that ended it, empty when none did or nobody knows which.

    A reason from a later version reads as `stop`: whatever ended it, it is whole.
    """

    reason: str = wire(Choice(*FINISH_REASONS, otherwise="stop"))
    prompt_tokens: int = wire(COUNT)
    completion_tokens: int = wire(COUNT)
    cached_tokens: int = wire(COUNT, default=0)
    prompt_s: float = wire(SECONDS, default=0.0)
    generation_s: float = wire(SECONDS, default=0.0)
    queue_s: float = wire(SECONDS, default=0.0)
    counted: bool = wire(Bool(), default=True)
    stop: str = wire(Text(limits.DETAIL_MAX_CHARS), default="")


@record
class Failure:
    """There will be no (more) answer.

    `code` is for programs, `message` for the person who asked: what happened, what it means, what
    to do. `elsewhere` says whether another node might succeed where this one failed, so a code
    from a later version may read as `engine_failed` without changing who tries next.
    """

    code: str = wire(Choice(*FAILURES, otherwise="engine_failed"))
    message: str = wire(Text(limits.DETAIL_MAX_CHARS))
    elsewhere: bool = wire(Bool())
    retry_after_s: float = wire(SECONDS, default=0.0)
    param: str = wire(LINE, default="")


@record
class Queued:
    """The job waits: `position` counts from 1, `wait_s` is the node's estimate. Part of no answer:
    it comes before the first part of one, any number of times."""

    position: int = wire(COUNT)
    wait_s: float = wire(SECONDS)


@record
class RawHead:
    """How the answer to a `raw` job begins: HTTP status and content type of the server asked."""

    status: int = wire(Int(100, 599))
    content_type: str = wire(LINE)


@record
class RawPart:
    """More of the answer to a `raw` job."""

    data: bytes = wire(Bytes(limits.RELAY_CHUNK_BYTES))


Event = (
    TextDelta | ReasoningDelta | ToolCallDelta | Vector | Finish | Failure
    | Queued | RawHead | RawPart
)  # fmt: skip

EVENTS = Union(
    {
        1: TextDelta,
        2: ReasoningDelta,
        3: ToolCallDelta,
        4: Vector,
        5: Finish,
        6: Failure,
        7: Queued,
        8: RawHead,
        9: RawPart,
    }
)
