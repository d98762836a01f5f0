"""What each route says: a whole reply, or a stream that is ready to be written.

This is the meeting of a dialect and the gateway, without HTTP: bytes of a request body come in, a
`Reply` or a `Stream` goes out, and `ApiError` is everything that can be said no with. A job that
fails before its first event is an HTTP error in either mode, so a client that asked for a stream
still gets a status it can act on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from meshd.api import job as requests
from meshd.api.body import decode_object
from meshd.api.completions import CompletionAnswer, CompletionStream
from meshd.api.embeddings import EmbeddingAnswer, read_embedding
from meshd.api.errors import ApiError, from_failure
from meshd.api.headers import answer_lines
from meshd.api.housing import ModelDesk, answer_housing
from meshd.api.models import find_model, model_list, model_object
from meshd.api.openai import INCOMPLETE, AnswerBuilder, ChatAnswer, ChatStream, EventEncoder
from meshd.api.paths import HOUSING, OWNERS, Found, Route
from meshd.api.replies import TEXT, Reply, error_reply, json_reply
from meshd.api.trust import answer_trust
from meshd.core.ports import Batch, EventStream, Gateway, RequestFailed, TrustDesk
from protocol.jobs import Failure

_HEALTHY = Reply(b'{"status":"ok"}')


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that has begun. Whoever holds it closes `events`."""

    lines: str
    first: bytes
    """The first batch, encoded."""
    events: EventStream
    encoder: EventEncoder


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask for text and to be answered."""

    read: Callable[[Mapping[str, Any], str, str], requests.Asked]
    id_prefix: str
    stream: Callable[..., EventEncoder]
    whole: Callable[..., AnswerBuilder]


CHAT = Dialect(requests.chat, "chatcmpl-", ChatStream, ChatAnswer)
COMPLETION = Dialect(requests.completion, "cmpl-", CompletionStream, CompletionAnswer)


DIALECTS = {Route.CHAT: CHAT, Route.COMPLETION: COMPLETION}


class Answers:
    """Answers routes from a gateway. `clock` gives Unix seconds; `banner` is the text of `/`;
    `trust` is asked who may be in the mesh, and None where nobody can be; `models` is told what the
    owner wants in memory."""

    def __init__(
        self,
        gateway: Gateway,
        banner: str,
        clock: Callable[[], float],
        trust: TrustDesk | None = None,
        models: ModelDesk | None = None,
    ) -> None:
        self._gateway = gateway
        self._trust = trust
        self._models = models
        self._banner = banner
        self._clock = clock

    async def answer(
        self, found: Found, body: bytes, request_id: str, session: str
    ) -> Reply | Stream:
        """The answer to one request. Raises ApiError; cancelling it cancels the job."""
        try:
            match found.route:
                case Route.CHAT | Route.COMPLETION as route:
                    return await self._generate(DIALECTS[route], body, request_id, session)
                case Route.EMBEDDING:
                    return await self._embed(body, request_id, session)
                case Route.EXPLAIN:
                    return self._explain(body, request_id, session)
                case route if route in OWNERS:
                    return await self._owner(route, body)
                case _:
                    return self._read(found)
        except RequestFailed as failed:
            lines = answer_lines(failed.head) if failed.head else ""
            return error_reply(from_failure(failed.failure), lines)

    async def _owner(self, route: Route, body: bytes) -> Reply:
        if route in HOUSING:
            return json_reply(await answer_housing(self._models, route, body))
        return json_reply(await answer_trust(self._trust, route, body))

    async def _generate(
        self, dialect: Dialect, body: bytes, request_id: str, session: str
    ) -> Reply | Stream:
        asked = dialect.read(decode_object(body), request_id, session)
        answer = await self._gateway.submit(asked.job)
        head, lines = answer.head, answer_lines(answer.head)
        answer_id, created = dialect.id_prefix + request_id, int(self._clock())
        try:
            if not asked.job.stream:
                whole = dialect.whole(
                    answer_id,
                    created,
                    head.model,
                    logprobs=asked.job.logprobs,
                    emulated=head.emulated,
                )
                return Reply(await _gather(answer.events, whole), lines=lines)
            first = await _first(answer.events)
        except ApiError as error:
            return error_reply(error, lines)
        encoder = dialect.stream(
            answer_id,
            created,
            head.model,
            include_usage=asked.include_usage,
            emulated=head.emulated,
        )
        try:
            return Stream(lines, encoder.encode(first), answer.events, encoder)
        except Exception:
            await answer.events.aclose()
            raise

    async def _embed(self, body: bytes, request_id: str, session: str) -> Reply:
        asked = read_embedding(decode_object(body), request_id, session)
        answer = await self._gateway.submit(asked.job)
        lines = answer_lines(answer.head)
        whole = EmbeddingAnswer(answer.head.model, len(asked.job.inputs), is_base64=asked.is_base64)
        try:
            return Reply(await _gather(answer.events, whole), lines=lines)
        except ApiError as error:
            return error_reply(error, lines)

    def _explain(self, body: bytes, request_id: str, session: str) -> Reply:
        """A dry run for a chat body, or for `{"model", "prompt"}`."""
        asked = decode_object(body)
        read = requests.completion if "prompt" in asked else requests.chat
        return json_reply(self._gateway.explain(read(asked, request_id, session).job))

    def _read(self, found: Found) -> Reply:
        match found.route:
            case Route.HEALTH:
                return _HEALTHY
            case Route.MODELS:
                return json_reply(model_list(self._gateway.models()))
            case Route.MODEL:
                model = find_model(self._gateway.models(), found.model)
                if isinstance(model, Failure):
                    raise from_failure(model)
                return json_reply(model_object(model))
            case Route.STATUS:
                return json_reply(self._gateway.status())
            case Route.MEMBERS:
                return json_reply(self._gateway.members())
            case Route.ROOT:
                return Reply(self._banner.encode(), content_type=TEXT)
            case _:
                raise AssertionError(f"{found.route} is answered before")


async def _first(events: EventStream) -> Batch:
    """The first batch. Raises ApiError when the answer is over before it began."""
    batch = await anext(events, None)
    failure = batch[0] if batch else INCOMPLETE
    if batch and not isinstance(failure, Failure):
        return batch
    await events.aclose()
    assert isinstance(failure, Failure)
    raise from_failure(failure)


async def _gather(events: EventStream, whole: AnswerBuilder) -> bytes:
    """All of it, in one body."""
    async with aclosing(events):
        async for batch in events:
            whole.add(batch)
    return whole.body()
