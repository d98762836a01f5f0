"""An MLX model and its tokenizer. Worker process only.

mlx-lm loads the folder; this module gives it the face that the rest of a worker knows: text to
tokens, tokens to bytes, conversations to prompts. The hub is switched off before this is imported
(`mlx_worker`): a folder is whole or it is refused, nothing is fetched.

Choices:

- the context is the model's own up to `CONTEXT_DEFAULT_TOKENS`. MLX takes memory for a sequence as
  it grows, so this bounds what a conversation may come to, not what is taken at once;
- without a GPU, MLX would build each fused kernel with the machine's C++ compiler, at the first use
  and in the middle of somebody's answer, and fail where there is none; so nothing is fused there;
- control tokens written out in a prompt count as such; a model that wants a beginning-of-text token
  gets exactly one;
- the chat template is run by the tokenizer that belongs to it. A conversation about tools is run by
  `template`, which checks what the tokenizer would swallow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.utils import load

from meshd.engine.mlx_embedding import MlxReader, makes_vectors
from meshd.engine.mlx_head import CONTEXT_DEFAULT_TOKENS
from meshd.engine.mlx_pieces import piece_of
from meshd.engine.template import ChatError, ChatTemplate

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class MlxError(Exception):
    """MLX refused; the text is for the owner."""


class MlxModel:
    """A loaded model. Not for use by two threads at once."""

    def __init__(self, path: Path, context: int) -> None:
        """`context` is in tokens per sequence; 0 chooses. Raises MlxError."""
        if mx.default_device() == mx.cpu:
            mx.disable_compile()
        try:
            loaded: Any = load(str(path), return_config=True)
        except Exception as error:
            raise MlxError(f"mlx-lm cannot load {path}: {_in_a_line(error)}") from error
        self.network, self._tokenizer, config = loaded
        tokenizer = self._tokenizer
        self.vocabulary_size = len(tokenizer)
        own = config.get("max_position_embeddings") or CONTEXT_DEFAULT_TOKENS
        self.context_length = context or min(int(own), CONTEXT_DEFAULT_TOKENS)
        self.ends: frozenset[int] = frozenset(tokenizer.eos_token_ids)
        """The tokens that end an answer."""
        self._bos = tokenizer.bos_token_id if self._puts_bos_in_front() else None
        self._silent = frozenset(tokenizer.all_special_ids) | self.ends
        self._spell = piece_of(tokenizer.backend_tokenizer.to_str().partition('"decoder"')[2])
        self._pieces: dict[int, bytes] = {}
        """At most one entry for each token of the vocabulary."""
        self._guidance: LLTokenizer | None = None
        self.template = ChatTemplate(
            tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
            self._render,
            {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""},
        )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, control tokens and one beginning-of-text token included."""
        ids = self.continuation(text)
        return [self._bos, *ids] if self._bos is not None and ids[:1] != [self._bos] else ids

    def continuation(self, text: str) -> list[int]:
        """Token ids of text that follows other text: nothing is put in front."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; control tokens stand for nothing, and so do the rows
        that pad a model's vocabulary to a round number."""
        known = self._pieces.get(token)
        if known is None:
            text = None
            if token not in self._silent and token < self.vocabulary_size:
                text = self._tokenizer.convert_ids_to_tokens(token)
            known = self._pieces[token] = self._spell(text) if text else b""
        return known

    def marked_piece(self, token: int) -> bytes:
        """As `piece`, but control tokens stand for their names: some mark thoughts, or calls."""
        is_mark = token in self._silent and token < self.vocabulary_size
        return (
            self._tokenizer.convert_ids_to_tokens(token).encode() if is_mark else self.piece(token)
        )

    def is_end(self, token: int) -> bool:
        """Does this token end an answer?"""
        return token in self.ends

    def guidance(self) -> LLTokenizer:
        """The tokenizer as llguidance sees it. Raises ImportError where that is not installed."""
        if self._guidance is None:
            from llguidance.hf import from_tokenizer

            self._guidance = from_tokenizer(self._hugging_face, eos_token=sorted(self.ends))
        return self._guidance

    def text_reader(self, _longest: int) -> MlxReader:
        """For texts of any length: MLX takes memory as it reads. Raises EmbeddingError."""
        return MlxReader(self.network)

    def makes_vectors(self) -> bool:
        """Whether this model can be asked for embeddings."""
        return makes_vectors(self.network)

    @property
    def _hugging_face(self) -> Any:
        """The tokenizer that mlx-lm's wraps."""
        return self._tokenizer._tokenizer

    def _puts_bos_in_front(self) -> bool:
        bos = self._tokenizer.bos_token_id
        return bos is not None and self._tokenizer.encode("a")[:1] == [bos]

    def _render(self, _template: bytes, turns: Sequence[tuple[bytes, bytes]]) -> str:
        """The tokenizer's own rendering of a conversation. Raises ChatError."""
        if not self._tokenizer.has_chat_template:
            raise ChatError(
                "this model has no chat template: it continues texts (/v1/completions) and was "
                "not made for conversations"
            )
        messages = [{"role": role.decode(), "content": said.decode()} for role, said in turns]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise ChatError(
                f"the model's chat template refuses this conversation: {_in_a_line(error)}"
            ) from error
        return text


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    return text or type(error).__name__
