"""Which route speaks which dialect: the one list of them all.

A route is answered by a `Dialect` (a job is made of the body, and its events are printed), or by a
page: a plain function of the body and of the models that there are. Whose shape an error takes is
decided by the path alone, so that it holds for a wrong key or a broken body too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshd.api import ollama_models as ollama_pages
from meshd.api.anthropic import count_tokens
from meshd.api.anthropic_answer import MESSAGES
from meshd.api.anthropic_answer import refuse as refuse_messages
from meshd.api.completions import COMPLETION
from meshd.api.dialect import Asker, Dialect
from meshd.api.embeddings import EMBEDDING
from meshd.api.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from meshd.api.ollama import refuse as refuse_ollama
from meshd.api.ollama_embed import OLLAMA_EMBED, OLLAMA_EMBEDDINGS
from meshd.api.openai import CHAT
from meshd.api.paths import Family, Found, Route, family
from meshd.api.replies import Refuse, Reply, refuse
from meshd.api.responses import page as response_page
from meshd.api.responses_answer import RESPONSES

Page = Callable[[Found, bytes, Asker, Sequence[Mapping[str, Any]]], Reply]
"""The route, the body, who asks, and `Gateway.models()` to an answer. Raises ApiError."""

DIALECTS: Mapping[Route, Dialect[Any]] = {
    Route.CHAT: CHAT,
    Route.COMPLETION: COMPLETION,
    Route.EMBEDDING: EMBEDDING,
    Route.RESPONSES: RESPONSES,
    Route.MESSAGES: MESSAGES,
    Route.OLLAMA_CHAT: OLLAMA_CHAT,
    Route.OLLAMA_GENERATE: OLLAMA_GENERATE,
    Route.OLLAMA_EMBED: OLLAMA_EMBED,
    Route.OLLAMA_EMBEDDINGS: OLLAMA_EMBEDDINGS,
}

PAGES: Mapping[Route, Page] = {
    Route.RESPONSE: lambda found, body, asker, _models: response_page(found.name, body, asker),
    Route.COUNT_TOKENS: lambda _found, body, asker, _models: count_tokens(body, asker),
    Route.OLLAMA_TAGS: lambda _found, _body, _asker, models: ollama_pages.tags(models),
    Route.OLLAMA_PS: lambda _found, _body, _asker, models: ollama_pages.running(models),
    Route.OLLAMA_VERSION: lambda _found, _body, _asker, _models: ollama_pages.version(),
    Route.OLLAMA_SHOW: lambda _found, body, _asker, models: ollama_pages.show(body, models),
    Route.OLLAMA_PULL: lambda _found, body, _asker, models: ollama_pages.pull(body, models),
    Route.OLLAMA_REFUSED: lambda found, _body, _asker, _models: _raise(
        ollama_pages.refused(found.path)
    ),
}

_REFUSALS: Mapping[Family, Refuse] = {
    Family.OPENAI: refuse,
    Family.ANTHROPIC: refuse_messages,
    Family.OLLAMA: refuse_ollama,
}


def refusal_of(target: str) -> Refuse:
    """Who words an error for this request's path."""
    return _REFUSALS[family(target)]


def _raise(error: Exception) -> Reply:
    raise error
