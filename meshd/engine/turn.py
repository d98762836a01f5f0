"""One job inside the worker: from its prompt's tokens to its last event.

`prepare` turns a job into tokens, or into the failure that says why it cannot run here. `Turn`
takes the sampled tokens one by one and says what the asker may see and when the answer is over: at
the model's own end, at a stop string, at `max_tokens`, or when the sequence's context is full.

`max_tokens` bounds the tokens made here; what a continued job brought along (`prefix_thought`,
`prefix_text`, `prefix_tokens`) is prompt. Without a bound an answer may fill the context.

Thoughts are told from the answer before anything else is read, so stop strings, calls of tools,
token ids and log-probabilities are the answer's. Tokens of which nothing is shown (marks, and the
white space beside them) leave with the answer's first, so that its ids are still all that was said;
but not behind a thought, with which no other machine can go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from meshd.engine.assembly import Assembler, Piece
from meshd.engine.failures import failure_of
from meshd.engine.template import ChatError, ChatTemplate
from meshd.engine.thoughts import ThoughtForm, ThoughtReader
from meshd.engine.tool_calls import ToolReader, form_of
from protocol.frozen import frozen
from protocol.jobs import Event, Failure, Finish, Job, ReasoningDelta, TextDelta

TOP_LOGPROBS_MAX = 20
"""OpenAI's bound; each alternative costs a sort of the vocabulary's head and bytes on the wire."""


class Tokenizer(Protocol):
    """What preparing a job asks of a model."""

    vocabulary_size: int
    context_length: int
    template: ChatTemplate

    def tokenize(self, text: str) -> list[int]: ...

    def continuation(self, text: str) -> list[int]: ...


class Speller(Protocol):
    """What reading an answer asks of a model."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; control tokens stand for nothing."""
        ...

    def marked_piece(self, token: int) -> bytes:
        """The same, but control tokens stand for their names."""
        ...


@frozen
class Prompt:
    """The tokens to read, and whether what follows them begins inside a thought."""

    tokens: list[int]
    opens_thought: bool = False


def prepare(job: Job, model: Tokenizer) -> Prompt | Failure:
    """What to read, never empty and shorter than the context, or why there is nothing."""
    refusal = _refusal(job, model)
    if refusal is not None:
        return refusal
    try:
        prompt = _prompt(job, model)
        prompt = replace(prompt, tokens=[*prompt.tokens, *prefix_of(job, model)])
    except ChatError as error:
        code = "unsupported" if error.elsewhere else "bad_request"
        return failure_of(code, str(error), elsewhere=error.elsewhere, param=error.param)
    length = len(prompt.tokens)
    if not length:
        return failure_of("bad_request", "the prompt is empty", elsewhere=False, param="prompt")
    if length >= model.context_length:
        return _too_long(length, job, model, "messages" if job.kind == "chat" else "prompt")
    return prompt


def prepare_texts(job: Job, model: Tokenizer) -> list[list[int]] | Failure:
    """The tokens of each text of an embedding job, or why there are none."""
    texts = []
    for entry in job.inputs:
        tokens = model.tokenize(entry) if isinstance(entry, str) else entry
        if not isinstance(tokens, list | tuple) or not all(type(each) is int for each in tokens):
            return _bad("each input must be a text or a list of token ids", "input")
        refusal = _check_ids(tokens, model, "input")
        if refusal is not None:
            return refusal
        if not tokens:
            return _bad("an input is empty: every text needs at least one token", "input")
        if len(tokens) > model.context_length:
            return _too_long(len(tokens), job, model, "input")
        texts.append(list(tokens))
    return texts or _bad("there is no input to embed", "input")


def _too_long(length: int, job: Job, model: Tokenizer, param: str) -> Failure:
    """The refusal of `length` tokens, with both numbers."""
    return failure_of(
        "context_length_exceeded",
        f"the prompt is {length} tokens long, and {job.model} has a context of "
        f"{model.context_length} tokens here, answer included; shorten the prompt, or give "
        "the engine a larger ctx=",
        elsewhere=False,
        param=param,
    )


def tools_of(job: Job) -> list[Any]:
    """The tools that this answer may call."""
    return list(job.tools) if job.tools and job.tool_choice != "none" else []


def is_forced(job: Job) -> bool:
    """Must this answer be a call?"""
    return bool(job.tools) and (isinstance(job.tool_choice, dict) or job.tool_choice == "required")


def format_of(job: Job) -> str:
    """`text`, `json_object`, `json_schema`, or whatever else was asked for."""
    wanted = job.response_format
    return str(wanted.get("type", "text")) if isinstance(wanted, dict) else "text"


def wants_form(job: Job) -> bool:
    """Is this answer's form given, so that it needs a constraint?"""
    return is_forced(job) or format_of(job) != "text"


def prefix_of(job: Job, model: Tokenizer) -> list[int]:
    """The tokens of what another machine already said."""
    if job.prefix_tokens is not None:
        return list(job.prefix_tokens)
    return model.continuation(job.prefix_text) if job.prefix_text else []


def reader_of(job: Job, model: Tokenizer) -> ToolReader | None:
    """What separates this answer's calls from its text; None for an answer without tools."""
    tools = tools_of(job)
    form = form_of(model.template.source)
    if not tools or form is None:
        return None
    names = [tool["function"]["name"] for tool in tools]
    begun = bool(job.prefix_text or job.prefix_tokens)
    return ToolReader(form, names, job.request_id, is_forced=is_forced(job), is_begun=begun)


def thoughts_in(job: Job, model: Tokenizer, *, is_open: bool) -> ThoughtReader | None:
    """What separates this answer's thoughts from what is said; None for one that has none.
    `is_open`: its prompt has begun the thought."""
    form = _thought_form(job, model)
    if form is None or _is_given(job):
        return None
    return form.reader(is_open=is_open, goes_on=bool(job.prefix_thought))


def _thought_form(job: Job, model: Tokenizer) -> ThoughtForm | None:
    """How thoughts are marked in a conversation that the model's template renders."""
    return model.template.thoughts if job.kind == "chat" and job.prompt_tokens is None else None


def _is_given(job: Job) -> bool:
    """Is this answer's form given, or a text that it begins with?"""
    goes_on = bool(job.prefix_text) and job.prefix_tokens is None
    return goes_on or wants_form(job) or bool(begun_of(job))


def _prompt(job: Job, model: Tokenizer) -> Prompt:
    if job.prompt_tokens is not None:
        return Prompt(list(job.prompt_tokens))
    if job.kind != "chat":
        return Prompt(model.tokenize(job.prompt or ""))
    tools = tools_of(job)
    begun = begun_of(job)
    turns = job.messages[:-1] if begun else job.messages
    text = model.template.render(turns, tools, _settings(job))
    thoughts = _thought_form(job, model)
    opens = thoughts is not None and thoughts.opens(text)
    if thoughts is not None and job.prefix_thought and not (begun or wants_form(job)):
        opens = not job.prefix_text
        text = thoughts.resumed(text, job.prefix_thought, is_over=not opens)
    elif thoughts is not None and _is_given(job):
        text, opens = thoughts.straight(text), False
    if tools:
        text += _opening(job, model)
    tokens = [*model.tokenize(text), *(model.continuation(begun) if begun else ())]
    return Prompt(tokens, opens)


def _opening(job: Job, model: Tokenizer) -> str:
    """What the prompt of an answer with tools ends with. Raises ChatError."""
    form = form_of(model.template.source)
    if form is None:
        raise ChatError(
            "this model's chat template writes tool calls in a form that is not known here; leave "
            "out 'tools', or ask a Qwen, Hermes, Llama 3 or Mistral model",
            "tools",
            elsewhere=True,
        )
    return form.opening if is_forced(job) and not begun_of(job) else ""


def begun_of(job: Job) -> str:
    """The assistant's own last text, where the model is to go on with it. The word for that is
    vLLM's, because adopted servers read it too."""
    last = job.messages[-1] if job.messages else None
    extras = job.extras if isinstance(job.extras, dict) else {}
    if extras.get("continue_final_message") is not True or not isinstance(last, dict):
        return ""
    content = last.get("content")
    return content if last.get("role") == "assistant" and isinstance(content, str) else ""


def _settings(job: Job) -> Mapping[str, Any]:
    """Switches of the chat template that the request sets."""
    extras = job.extras if isinstance(job.extras, dict) else {}
    told = extras.get("chat_template_kwargs", {})
    if not isinstance(told, dict):
        raise ChatError("chat_template_kwargs must be an object", "chat_template_kwargs")
    return told


def _refusal(job: Job, model: Tokenizer) -> Failure | None:
    if not isinstance(job.tools or [], list) or not all(map(_is_function, tools_of(job))):
        return _bad("every tool must be a function with a name, its parameters a schema", "tools")
    if job.top_logprobs > TOP_LOGPROBS_MAX:
        return _bad(f"'top_logprobs' must be at most {TOP_LOGPROBS_MAX}", "top_logprobs")
    ids = (*(job.prompt_tokens or ()), *(job.prefix_tokens or ()))
    biased = (int(token) for token, _ in job.sampling.logit_bias)
    for param, tokens in (("prompt", ids), ("logit_bias", biased)):
        refusal = _check_ids(tokens, model, param)
        if refusal is not None:
            return refusal
    return None


def _check_ids(tokens: Iterable[int], model: Tokenizer, param: str) -> Failure | None:
    """The refusal of token ids that this model does not have."""
    if all(0 <= token < model.vocabulary_size for token in tokens):
        return None
    return _bad(f"{param} holds a token id outside 0 to {model.vocabulary_size - 1}", param)


def _is_function(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    return isinstance(function.get("parameters"), dict | None)


def _bad(message: str, param: str) -> Failure:
    return failure_of("bad_request", message, elsewhere=False, param=param)


@dataclass(slots=True)
class Turn:
    """A job that has tokens. Times are the caller's clock in seconds."""

    key: int
    job: Job
    prompt: list[int]
    context_length: int
    arrived: float
    carried: Sequence[int] = ()
    """The end of the prompt that is the beginning of the answer, made by another machine."""
    said: Sequence[bytes] = ()
    """The bytes of each of `carried`."""
    cached: int = 0
    placed: float = 0.0
    first: float = 0.0
    count: int = 0
    is_over: bool = False
    sampler: Any = None
    constraint: Any = None
    """A `Constraint` of `meshd.engine.grammar`, for an answer whose form is given."""
    reader: ToolReader | None = None
    thoughts: ThoughtReader | None = None
    silent: list[tuple[int, Any]] = field(default_factory=list)
    """Tokens that the assembler has yet to get, with what then belongs into `logprobs`."""
    assembler: Assembler = field(init=False)
    logprobs: deque[Any] = field(default_factory=deque)
    """Of the tokens whose text has not left yet, where they were asked for."""

    def __post_init__(self) -> None:
        self.assembler = Assembler(self.job.stop, self.said)

    def piece(self, token: int, model: Speller) -> bytes:
        """What a token stands for in this answer: marks that are read here stand for themselves."""
        if self.reader is not None:
            return model.marked_piece(token)
        if self.thoughts is not None and (mark := model.marked_piece(token)) in self.thoughts.marks:
            return mark
        return model.piece(token)

    def token(
        self, token: int, piece: bytes, *, is_end: bool, now: float, logprob: Any = None
    ) -> Sequence[Event]:
        """The events after one sampled token; `is_over` says whether the last is a Finish, or the
        Failure of an answer whose form cannot be kept.
        `logprob` is OpenAI's object for this token, where the job asked for them."""
        if not self.count:
            self.first = now
        self.count += 1
        why = self.constraint.broken() if self.constraint is not None else None
        if why is not None:
            self.is_over = True
            return [_bad(str(why), why.param)]
        if is_end:
            return self._end([], "stop", now)
        events = self._hear(token, piece, logprob)
        if self.assembler.stopped:
            return self._end(events, "stop", now)
        if self.constraint is not None and self.constraint.is_over:
            return self._end(events, "stop", now)
        if self.count == self.job.max_tokens or self._is_full():
            return self._end(events, "length", now)
        return events

    def _end(self, events: list[Event], reason: str, now: float) -> list[Event]:
        """What was held back, and the account."""
        if not self.assembler.stopped:
            if self.thoughts is not None:
                events += self._sort(*self.thoughts.finish())
            events += self._delta(self.assembler.finish())
        if self.reader is not None:
            events += self.reader.finish()
            if self.reader.called and reason == "stop":
                reason = "tool_calls"
        return [*events, self.finish(reason, now)]

    def _hear(self, token: int, piece: bytes, logprob: Any) -> list[Event]:
        """What one more token makes certain."""
        heard: tuple[str, bytes | None] = "", piece
        if self.thoughts is not None:
            heard = self.thoughts.feed(piece)
            if self.thoughts.has_thought:
                self.silent.clear()
        self.silent.append((token, logprob))
        return self._sort(*heard)

    def _sort(self, thought: str, answer: bytes | None) -> list[Event]:
        """A thought leaves as it is; the answer goes on to the assembler, behind its silence."""
        events: list[Event] = [ReasoningDelta(thought)] if thought else []
        if answer is None:
            return events
        silent, self.silent = self.silent, []
        for left, (token, logprob) in zip(reversed(range(len(silent))), silent, strict=True):
            if logprob is not None:
                self.logprobs.append(logprob)
            events += self._delta(self.assembler.push(token, b"" if left else answer))
        return events

    def _delta(self, piece: Piece | None) -> list[Event]:
        if piece is None:
            return []
        if self.reader is not None:
            return list(self.reader.feed(piece.text))
        if not self.logprobs:
            return [TextDelta(piece.text, piece.token_ids)]
        entries = [self.logprobs.popleft() for _ in piece.token_ids]
        return [TextDelta(piece.text, piece.token_ids, entries)]

    def finish(self, reason: str, now: float) -> Finish:
        """The account of what was done; the turn is over."""
        self.is_over = True
        first = self.first or now
        return Finish(
            reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=self.count,
            cached_tokens=self.cached,
            prompt_s=max(0.0, first - self.placed),
            generation_s=max(0.0, now - first),
            queue_s=max(0.0, self.placed - self.arrived),
            stop=self.assembler.stop,
        )

    def _is_full(self) -> bool:
        return len(self.prompt) + self.count >= self.context_length
