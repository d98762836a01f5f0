"""What each route says: a whole reply, or a stream that is ready to be written.

This is the meeting of a dialect and the gateway, without HTTP: bytes of a request body come in, a
`Reply` or a `Stream` goes out, and `ApiError` is everything that can be said no with. A job that
fails before its first event is an HTTP error in either mode, so a client that asked for a stream
still gets a status it can act on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from meshd.api.body import decode_object
from meshd.api.chat import read_chat
from meshd.api.dialect import NOTICES, AnswerBuilder, Asked, Asker, Dialect, EventEncoder, Opening
from meshd.api.dialects import DIALECTS, PAGES
from meshd.api.errors import ApiError, from_failure
from meshd.api.fanout import answer_of, several
from meshd.api.headers import answer_lines
from meshd.api.housing import ModelDesk, answer_housing
from meshd.api.models import find_model, model_list, model_object
from meshd.api.paths import HOUSING, OWNERS, WORK, Found, Route
from meshd.api.prompts import read_completion
from meshd.api.raw import RawBrokenOff, RawStream, read_raw
from meshd.api.replies import TEXT, Reply, json_reply
from meshd.api.trust import answer_trust
from meshd.api.work import answer_work
from meshd.api.writing import INCOMPLETE
from meshd.core.ports import Answer, Batch, EventStream, Gateway, RequestFailed, TrustDesk, WorkDesk
from protocol.frozen import frozen
from protocol.jobs import Failure

_HEALTHY = Reply(b'{"status":"ok"}')

Expect = Callable[[Dialect[Any], Asked], object]
"""Told that a stream is asked for, before the wait for its first word begins."""


@frozen
class Stream:
    """An answer that has begun. Whoever holds it closes `events`."""

    lines: str
    """Header lines, the content type among them."""
    first: bytes
    """The first batch, encoded."""
    events: EventStream
    encoder: EventEncoder
    status: int = 200
    endless: bool = False
    """It ends when its reader leaves: nobody waits for it when the daemon stops."""


def _nobody(_dialect: Dialect[Any], _asked: Asked) -> None:
    """Nobody wants to know."""


class Answers:
    """Answers routes from a gateway. `clock` gives Unix seconds; `banner` is the text of `/`;
    `trust` is asked who may be in the mesh, and None where nobody can be; `models` is told what the
    owner wants in memory; `work` knows the requests and is told to drain."""

    def __init__(
        self,
        gateway: Gateway,
        banner: str,
        clock: Callable[[], float],
        trust: TrustDesk | None = None,
        models: ModelDesk | None = None,
        *,
        work: WorkDesk | None = None,
    ) -> None:
        self._gateway = gateway
        self._trust = trust
        self._models = models
        self._work = work
        self._banner = banner
        self._clock = clock

    async def answer(
        self, found: Found, body: bytes, asker: Asker, expect: Expect = _nobody
    ) -> Reply | Stream:
        """The answer to one request. Raises ApiError; cancelling it cancels the job."""
        dialect = DIALECTS.get(found.route)
        try:
            if dialect is not None:
                return await self._generate(dialect, body, asker, expect)
            if found.route is Route.RAW:
                return await self._pass_on(found.path, body, asker)
            if found.route in OWNERS:
                return await self._owner(found, body)
            if found.route in PAGES:
                return PAGES[found.route](found, body, asker, self._gateway.models())
            return self._read(found, body, asker)
        except RequestFailed as failed:
            error = from_failure(failed.failure)
            error.lines = answer_lines(failed.head) if failed.head else ""
            raise error from None

    async def _owner(self, found: Found, body: bytes) -> Reply:
        route = found.route
        if route in WORK:
            return json_reply(answer_work(self._work, found))
        if route in HOUSING:
            return json_reply(await answer_housing(self._models, route, body))
        return json_reply(await answer_trust(self._trust, route, body))

    async def _generate(
        self, dialect: Dialect[Any], body: bytes, asker: Asker, expect: Expect
    ) -> Reply | Stream:
        asked = dialect.read(decode_object(body), asker)
        if isinstance(asked, Reply):
            return asked
        if asked.job.stream:
            expect(dialect, asked)
        answer = await self._submit(asked)
        opening = Opening(asker.request_id, self._clock(), answer.head)
        lines = answer_lines(answer.head) + asked.lines
        try:
            if not asked.job.stream:
                whole = dialect.whole(asked, opening)
                return Reply(await _gather(answer, whole), lines=lines)
            first = await _first(answer.events)
        except ApiError as error:
            error.lines = lines
            raise
        encoder = dialect.stream(asked, opening)
        try:
            lines = dialect.stream_lines + lines
            return Stream(lines, encoder.encode(first), answer.events, encoder)
        except Exception:
            await answer.events.aclose()
            raise

    async def _pass_on(self, path: str, body: bytes, asker: Asker) -> Stream:
        """The answer of a server that some node has adopted, as it comes."""
        asked = read_raw(path, asker.content_type, body, asker, self._gateway.models())
        answer = await self._gateway.submit(asked.job)
        lines = answer_lines(answer.head)
        try:
            first = await _first(answer.events)
            while all(type(event) in NOTICES for event in first):
                first = await _first(answer.events)
            encoder = RawStream(first)
            lines = encoder.lines + lines
            return Stream(lines, encoder.encode(first), answer.events, encoder, encoder.status)
        except ApiError as error:
            error.lines = lines
            raise
        except RawBrokenOff as broken:
            await answer.events.aclose()
            raise ConnectionResetError(str(broken)) from None

    async def _submit(self, asked: Asked) -> Answer:
        if not asked.others:
            return await self._gateway.submit(asked.job)
        return answer_of(*await several(self._gateway, (asked.job, *asked.others)))

    def _explain(self, body: bytes, asker: Asker) -> Reply:
        """A dry run for a chat body, or for `{"model", "prompt"}`."""
        asked = decode_object(body)
        read = read_completion if "prompt" in asked else read_chat
        return json_reply(self._gateway.explain(read(asked, asker).job))

    def _read(self, found: Found, body: bytes, asker: Asker) -> Reply:
        """What is known at once."""
        if found.route in WORK:
            return json_reply(answer_work(self._work, found))
        match found.route:
            case Route.HEALTH:
                return _HEALTHY
            case Route.ROOT:
                return Reply(self._banner.encode(), content_type=TEXT)
            case Route.EXPLAIN:
                return self._explain(body, asker)
            case _:
                return json_reply(self._body(found))

    def _body(self, found: Found) -> Mapping[str, Any]:
        match found.route:
            case Route.MODELS:
                return model_list(self._gateway.models())
            case Route.MODEL:
                model = find_model(self._gateway.models(), found.name)
                if isinstance(model, Failure):
                    raise from_failure(model)
                return model_object(model)
            case Route.STATUS:
                return self._gateway.status()
            case Route.MEMBERS:
                return self._gateway.members()
            case _:
                raise AssertionError(f"{found.route} is answered before")


async def _first(events: EventStream) -> Batch:
    """The first batch. Raises ApiError when the answer is over before it began."""
    batch = await anext(events, None)
    failure = _failure_in(batch) if batch else INCOMPLETE
    if batch and failure is None:
        return batch
    await events.aclose()
    assert failure is not None
    raise from_failure(failure)


def _failure_in(batch: Batch) -> Failure | None:
    """The failure that a batch begins with, whatever was remarked before."""
    begin = next((event for event in batch if type(event) not in NOTICES), None)
    return begin if isinstance(begin, Failure) else None


async def _gather(answer: Answer, whole: AnswerBuilder) -> bytes:
    """All of it, in one body."""
    if answer.whole is not None:
        whole.add(answer.whole)
        return whole.body()
    async with aclosing(answer.events) as events:
        async for batch in events:
            whole.add(batch)
    return whole.body()
