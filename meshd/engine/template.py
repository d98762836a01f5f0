"""From chat messages to the one text that the model was trained to continue.

llama.cpp's own renderer comes first: it recognises the common families (ChatML, Llama, Mistral,
Gemma ...) and adds nothing of its own. Only a template that it does not know is run as what it is,
a Jinja program out of a file that somebody downloaded, and so in Jinja's sandbox.

The order matters. SmolLM2's template, run as a program, puts a system prompt of its own in front of
a conversation that has none, and with that prompt the 4-bit model of the bundled package answers
"What is the capital of France?" in French nonsense; without it, as llama.cpp renders it, it
answers "Paris". The tokens are the same either way, and no token is doubled: it is the prompt.

A request may set switches of the template's own (`chat_template_kwargs`, as vLLM and llama.cpp call
them: `enable_thinking`); where the template names one, it is run as a program too.

So is one that marks thoughts: llama.cpp's renderer leaves out the `<think>` that some prompts end
with, and what tells gpt-oss of its channels. Where such a program fails (some were mended for
another interpreter of Jinja than ours), llama.cpp's rendering is still better than none.

A conversation with tools is always run as a program: llama.cpp's renderer knows nothing of them,
and the template says how this model was trained to be offered tools. A template that never reads
`tools` was made for a model that cannot call any; that is said, and the tools are not dropped.
Arguments of earlier calls come as JSON text and are given to the program as objects, because
templates print them with `tojson`.

What such a program refuses is put to it once more in the strictest order
(`meshd.engine.orderly`).

Message content may be a text, a list of parts, or nothing. Text parts are joined; any other part
(a picture, a sound) is refused, because this engine runs text models.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from meshd.engine.orderly import orderly
from meshd.engine.thoughts import thoughts_of

Render = Callable[[bytes, Sequence[tuple[bytes, bytes]]], str | None]
"""llama.cpp's renderer: a template and (role, content) pairs to text, None when it cannot."""

CHATML = b"chatml"
"""What llama.cpp assumes of a model without a template."""

FAULTS = ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError
"""What somebody's program may raise besides Jinja's own errors."""

TEMPLATE_MAX_CHARS = 64 * 1024
"""Of a template that is looked into for tools, which then takes half a second at most; the longest
of real ones have 20,000."""


class ChatError(ValueError):
    """The conversation cannot be put to this model; the text says which message and why.
    `elsewhere`: by this engine, that is; another might."""

    def __init__(self, message: str, param: str = "messages", *, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.param = param
        self.elsewhere = elsewhere


class ChatTemplate:
    """Renders conversations for one model."""

    def __init__(self, template: str | None, render: Render, tokens: Mapping[str, str]) -> None:
        """`tokens` are the texts of bos_token and eos_token, which templates may print."""
        self.source = template or ""
        self.takes_tools = reads_tools(self.source)
        self.thoughts = thoughts_of(self.source)
        self._template = template
        self._render = render
        self._tokens = dict(tokens)

    def render(
        self,
        messages: Sequence[Any],
        tools: Sequence[Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt, up to where the assistant begins to speak. `settings` are switches of the
        template's own (`enable_thinking`); those it does not name change nothing. Raises
        ChatError."""
        turns = [_turn(index, message) for index, message in enumerate(messages)]
        if not turns:
            raise ChatError("messages is empty: give at least one message")
        if tools and not self.takes_tools:
            raise ChatError(
                "this model's chat template has no place for tools, so it cannot call any; leave "
                "out 'tools', or ask a model that was trained to call them",
                "tools",
            )
        known = self._template.encode() if self._template else CHATML
        named = {name: value for name, value in (settings or {}).items() if name in self.source}
        about_tools = self.takes_tools and (tools or any(map(_is_about_tools, turns)))
        if not named and not about_tools:
            if self.thoughts is not None:
                with contextlib.suppress(ChatError):
                    return self._render_jinja(self.source, turns, tools, named)
            pairs = [(_c_text(turn["role"]), _c_text(turn["content"])) for turn in turns]
            text = self._render(known, pairs)
            if text is not None:
                return text
        assert self._template is not None, "llama.cpp knows ChatML"
        return self._render_jinja(self._template, turns, tools, named)

    def _render_jinja(
        self,
        template: str,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
        settings: Mapping[str, Any],
    ) -> str:
        """The prompt that a program makes. Raises ChatError."""
        named = {
            **settings,
            **self._tokens,
            "tools": list(tools) if tools else None,
            "add_generation_prompt": True,
        }
        try:
            return _run(template, {**named, "messages": turns})
        except ChatError:
            with contextlib.suppress(ChatError):
                return _run(template, {**named, "messages": orderly(turns)})
            raise


def _run(template: str, names: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        text: str = program_of(template).render(names)
    except (TemplateError, *FAULTS) as error:
        raise ChatError(f"the model's chat template refuses this conversation: {error}") from None
    return text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=1)
def program_of(template: str) -> Any:
    """A template ready to run. A worker has one, and making it takes up to a tenth of a second, in
    which no stream goes on. Raises Jinja's TemplateError."""
    return _environment().from_string(template)


def _environment() -> Any:
    """Jinja as templates of models expect it: whitespace control, break and continue, JSON that is
    not escaped for HTML, and `generation`, which marks for training what the assistant says."""
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _today
    environment.filters["tojson"] = _to_json
    return environment


def reads_tools(template: str) -> bool:
    """Does a template look at the tools it is given? It is parsed only, and nothing of it computed:
    the daemon asks this of every file that it finds."""
    if "tools" not in template or len(template) > TEMPLATE_MAX_CHARS:
        return False
    from jinja2 import TemplateError, nodes

    try:
        names = _environment().parse(template).find_all(nodes.Name)
        return any(name.name == "tools" and name.ctx == "load" for name in names)
    except (TemplateError, RecursionError):
        return False


def _today(form: str) -> str:
    """Templates print the date into the system prompt; some models were trained with one."""
    return datetime.now(tz=UTC).strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter as the library defines it that models are published for."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _is_about_tools(turn: Mapping[str, Any]) -> bool:
    return turn["role"] == "tool" or "tool_calls" in turn


def _turn(index: int, message: Any) -> dict[str, Any]:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise ChatError(f"{where} is not an object", where)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise ChatError(f"{where}.role is missing: use system, user or assistant", f"{where}.role")
    turn: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": _text(f"{where}.content", message.get("content")),
    }
    calls = message.get("tool_calls")
    if isinstance(calls, Sequence) and calls:
        turn["tool_calls"] = [
            _call(f"{where}.tool_calls[{at}]", call) for at, call in enumerate(calls)
        ]
    for name in ("name", "tool_call_id"):
        if isinstance(message.get(name), str):
            turn[name] = message[name]
    return turn


def _call(where: str, call: Any) -> dict[str, Any]:
    """An earlier call, its arguments as an object where they are one."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ChatError(f"{where} is no function call with a name", where)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    return {
        "id": call.get("id") or "",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _text(where: str, content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ChatError(f"{where} is neither text nor a list of parts", where)
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            kind = part.get("type", "part") if isinstance(part, Mapping) else type(part).__name__
            raise ChatError(f"{where} holds a {kind}: this model reads text only", where)
        texts.append(text)
    return "".join(texts)


def _c_text(text: str) -> bytes:
    """C strings end at a NUL, which no tokenizer needs."""
    return text.replace("\0", "").encode()


def _raise_exception(message: str) -> None:
    raise ValueError(message)
