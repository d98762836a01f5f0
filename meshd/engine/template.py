"""From chat messages to the one text that the model was trained to continue.

llama.cpp's own renderer comes first: it recognises the common families (ChatML, Llama, Mistral,
Gemma ...) and adds nothing of its own. Only a template that it does not know is run as what it is,
a Jinja program out of a file that somebody downloaded, and so in Jinja's sandbox.

The order matters. SmolLM2's template, run as a program, puts a system prompt of its own in front of
a conversation that has none, and with that prompt the 4-bit model of the bundled package answers
"What is the capital of France?" in French nonsense; without it, as llama.cpp renders it, it
answers "Paris". The tokens are the same either way, and no token is doubled: it is the prompt.

Message content may be a text, a list of parts, or nothing. Text parts are joined; any other part
(a picture, a sound) is refused, because this engine runs text models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Render = Callable[[bytes, Sequence[tuple[bytes, bytes]]], str | None]
"""llama.cpp's renderer: a template and (role, content) pairs to text, None when it cannot."""

CHATML = b"chatml"
"""What llama.cpp assumes of a model without a template."""


class ChatError(ValueError):
    """The conversation cannot be put to this model; the text says which message and why."""

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


class ChatTemplate:
    """Renders conversations for one model."""

    def __init__(self, template: str | None, render: Render, tokens: Mapping[str, str]) -> None:
        """`tokens` are the texts of bos_token and eos_token, which templates may print."""
        self._template = template
        self._render = render
        self._tokens = dict(tokens)

    def render(self, messages: Sequence[Any]) -> str:
        """The prompt, up to where the assistant begins to speak. Raises ChatError."""
        turns = [_turn(index, message) for index, message in enumerate(messages)]
        if not turns:
            raise ChatError("messages is empty: give at least one message")
        known = self._template.encode() if self._template else CHATML
        pairs = [(_c_text(turn["role"]), _c_text(turn["content"])) for turn in turns]
        text = self._render(known, pairs)
        if text is not None:
            return text
        assert self._template is not None, "llama.cpp knows ChatML"
        return self._render_jinja(self._template, turns)

    def _render_jinja(self, template: str, turns: Sequence[Mapping[str, str]]) -> str:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise_exception
        try:
            return environment.from_string(template).render(
                messages=turns, add_generation_prompt=True, **self._tokens
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ChatError(
                f"the model's chat template refuses this conversation: {error}"
            ) from None


def _turn(index: int, message: Any) -> dict[str, str]:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise ChatError(f"{where} is not an object", where)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise ChatError(f"{where}.role is missing: use system, user or assistant", f"{where}.role")
    return {
        "role": "system" if role == "developer" else role,
        "content": _text(f"{where}.content", message.get("content")),
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
