"""Adopting a server that already runs: Ollama, LM Studio, llama-server, vLLM, anything that speaks
OpenAI's format.

Its models are listed every few seconds, never tried: a probe by inference would load models, evict
others, and cost money. A server that is down is an engine without models, not an error: it may come
back. One that is at work for us and lists nothing meanwhile is busy, not down: many of those for
speech and pictures do one thing at a time.

The way of a job is kept short, because it is the whole gateway's way: a small client of our own
with connections kept alive, a body encoded once, events decoded from each network read as one
batch. A plain job is one plain request. Nothing is tried twice once anything was answered: that is
the router's business. The one exception is a conversation that the model's template refuses for the
order of its turns: every node's server has the same template, so it is asked once more in another
order (`meshd.engine.orderly`).

Faults of the server become failures that say whose fault it is: refused connections, error
statuses, broken streams, answers that end without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec

from meshd.core.ports import Batch, EngineError, EventStream
from meshd.core.stats import SpeedMeter, load_guess_s
from meshd.engine import raw
from meshd.engine.failures import failure_of
from meshd.engine.habits import OLLAMA, is_of_ollama, is_ollama, ollama_job
from meshd.engine.http1 import HttpError
from meshd.engine.http_client import ConnectionFailed, Exchange, HttpClient
from meshd.engine.listing import UPSTREAM, Listed, read_listing, unlisted
from meshd.engine.ollama_details import Details, is_called
from meshd.engine.openai_vectors import vectors_body
from meshd.engine.openai_wire import request_body, request_path
from meshd.engine.orderly import in_either_order, is_orderly
from meshd.engine.sse import first_events_apart
from meshd.engine.upstream_replies import failure_in, is_refusal, reader_of
from meshd.rhythm import Steady
from protocol.jobs import Failure, Finish, Job
from protocol.load import ModelLoad, ModelRecord

LOG = logging.getLogger(__name__)

REFRESH_S = 3.0
"""Between two listings: a model pulled into Ollama shows up before its owner has looked."""

LISTING_TIMEOUT_S = 5.0
"""For one listing; servers that are busy loading a model can be slow to answer."""

ERROR_BODY_MAX_BYTES = 64 * 1024
"""Read of an error's body: its message is all that is wanted."""

LISTING_MAX_BYTES = 4 * 1024 * 1024
"""Read of a listing: llama.cpp's router tells about 1 kB per model."""

NOTHING_THERE = frozenset({404, 405, 501})
"""Statuses for a path that a server does not have."""


Get = Callable[[str, Any], Awaitable[Any]]
"""Asks a server for a path below its root: GET, or POST of a JSON body that is not None. The
decoded answer; raises ConnectionFailed, and ValueError for what is no JSON or no 200."""

Lister = Callable[[Get], Awaitable[tuple[list[Listed], int]]]
"""Lists a server's models, and its slots (0: not said). Raises what `Get` raises."""


class ListingLate(ValueError):
    """A server did not list its models in time."""

    def __init__(self) -> None:
        super().__init__(f"no list of models within {LISTING_TIMEOUT_S:.0f} s")


class ListingAbsent(ValueError):
    """A server is there, and has no list of models."""


class UpstreamEngine:
    """`Engine` for the models of one OpenAI-compatible server."""

    def __init__(
        self,
        url: str,
        model: str = "",
        slots: int = 8,
        *,
        name: str = "",
        key: str = "",
        lister: Lister | None = None,
        refresh_s: float = REFRESH_S,
        is_expected: bool = True,
        can: Sequence[str] = (),
    ) -> None:
        """`slots` is how many jobs the server is believed to run at once; it queues itself. `key`
        goes to that server alone. `lister` is for servers that tell more than OpenAI's list;
        `is_expected` False: that nobody is there is not worth a word. `can` are the capabilities of
        its models, where the owner knows better than the server tells."""
        parts = urlsplit(url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2])  # peers and clients read it
        self.name = name or f"{UPSTREAM} {shown.geturl()}"
        self._client = HttpClient(url, key)
        self._lister = lister
        self._refresh_s = refresh_s
        self._is_expected = is_expected
        self._bases = _candidate_bases(parts.path)
        self._base = self._bases[0]
        self._only = model
        self._can = tuple(can)
        self._slots = slots
        self._owner: asyncio.Task[None] | None = None
        self._details = Details(model)
        self._listed: dict[str, Listed] = {}
        self._aliases: dict[str, str] = {}
        self._in_flight: Counter[str] = Counter()
        self._meters: defaultdict[str, SpeedMeter] = defaultdict(SpeedMeter)
        self._trouble = "" if is_expected else "nobody was there yet"

    async def start(self) -> None:
        """Returns after the first listing, whatever it said."""
        await self._refresh()
        self._owner = asyncio.create_task(self._refresh_for_ever(), name=f"engine: {self.name}")

    async def close(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await owner
        self._client.close()
        self._listed = {}

    def models(self) -> Sequence[ModelRecord]:
        return tuple(each.record for each in self._listed.values())

    def stats(self) -> Sequence[ModelLoad]:
        return tuple(self._load(each) for each in self._listed.values())

    async def load(self, model_id: str) -> None:
        """Nothing to do: the server loads what it is asked for."""
        if model_id not in self._listed:
            raise EngineError(f"{self.name} has no model {model_id!r}")

    async def unload(self, model_id: str) -> None:
        raise EngineError(f"{model_id} belongs to {self.name}; unload it there")

    def generate(self, job: Job) -> EventStream:
        if job.kind == "chat" and not is_orderly(job.messages):
            return in_either_order(self._generate, job)
        return self._generate(job)

    def _load(self, each: Listed) -> ModelLoad:
        model_id = each.record.model_id
        jobs, meter = self._in_flight[model_id], self._meters[model_id]
        in_flight, queued = min(jobs, self._slots), max(0, jobs - self._slots)
        return ModelLoad(
            model_id=model_id,
            warm=each.is_warm,
            slots=self._slots,
            in_flight=in_flight,
            queued=queued,
            backlog_s=meter.backlog_s(in_flight, queued, self._slots),
            prompt_tps=meter.prompt_tps,
            generation_tps=meter.generation_tps,
            load_s=0.0 if each.is_warm else load_guess_s(each.record.size_bytes),
        )

    async def _generate(self, job: Job) -> EventStream:
        model_id = self._aliases.get(job.model, job.model)
        refusal = self._refusal(job, model_id)
        if refusal is not None:
            yield [refusal]
            return
        self._in_flight[model_id] += 1
        exchange = None
        try:
            began = monotonic()
            listed = self._listed[model_id]
            exchange = await self._ask_for(job, listed)
            if is_refusal(job, exchange.status):
                body = await exchange.read_at_most(ERROR_BODY_MAX_BYTES)
                yield [failure_in(exchange, body, self.name)]
                return
            answer = reader_of(job, exchange, began)
            begun = False
            while True:
                received = await exchange.read()
                for piece in (received,) if begun else first_events_apart(received):
                    batch = answer.take(piece, monotonic())
                    if batch:
                        begun = True
                        yield self._learned(listed, batch)
                    if answer.is_over:
                        return
        except (ConnectionFailed, HttpError) as error:
            yield [self._failure(error, answered=exchange is not None)]
        finally:
            self._in_flight[model_id] -= 1
            if exchange is not None:
                exchange.end()

    async def _ask_for(self, job: Job, listed: Listed) -> Exchange:
        """Send the job's request. Raises ConnectionFailed and HttpError."""
        served_name = listed.served_name or listed.record.model_id
        if is_of_ollama(listed.record):
            job = ollama_job(job, listed.record)
        if job.raw is not None:
            body = raw.body_for(job.raw, served_name)
            path = self._base.removesuffix("/v1") + job.raw.path
            return await self._client.request("POST", path, body, job.raw.content_type)
        make = vectors_body if job.kind == "embedding" else request_body
        path = self._base + request_path(job)
        return await self._client.request("POST", path, make(job, served_name))

    def _refusal(self, job: Job, model_id: str) -> Failure | None:
        listed = self._listed.get(model_id)
        if listed is None:
            because = f" ({self._trouble})" if self._trouble else ""
            return failure_of(
                "model_not_found",
                f"{self.name} has no model {job.model!r}{because}",
                elsewhere=True,
            )
        if job.kind == "raw":
            return raw.refusal_of(job.raw)
        is_text = job.kind == "completion" and job.prompt is not None
        begun = job.prefix_text or job.prefix_tokens or job.prefix_thought
        if begun and not (is_text and job.prefix_text):
            return failure_of(
                "unsupported",
                f"{self.name} cannot carry on an answer that another machine began",
                elsewhere=True,
            )
        return None

    def _learned(self, listed: Listed, batch: Batch) -> Batch:
        last = batch[-1]
        if not isinstance(last, Finish):
            return batch
        meter = self._meters[listed.record.model_id]
        last = last if listed.is_warm else meter.after_load(last)
        meter.observe(last)
        return [*batch[:-1], last]

    def _failure(self, error: Exception, *, answered: bool) -> Failure:
        if answered or isinstance(error, HttpError):
            broke = f"{self.name} broke its answer off: {error}"
            return failure_of("engine_failed", broke, elsewhere=True)
        return failure_of(
            "unreachable",
            f"{self.name} cannot be reached ({error}); is the server running?",
            elsewhere=True,
        )

    async def _refresh_for_ever(self) -> None:
        steady = Steady(f"list of {self.name}")
        while True:
            await asyncio.sleep(self._refresh_s)
            with steady:
                self._client.sweep()
                await self._refresh()

    async def _refresh(self) -> None:
        """List the models again. A server that does not answer has none."""
        if self._lister is not None:
            await self._refresh_by(self._lister)
            return
        trouble: Exception | None = None
        for base in self._bases:
            try:
                listed = await self._list(base)
            except (ConnectionFailed, ValueError) as error:
                trouble = trouble or error
                continue
            self._base = base
            self._bases = (base, *(other for other in self._bases if other != base))
            self._keep(listed, "")
            return
        if self._only and isinstance(trouble, ListingAbsent):
            self._keep([], "")
        else:
            self._miss(trouble)

    async def _refresh_by(self, lister: Lister) -> None:
        try:
            async with asyncio.timeout(LISTING_TIMEOUT_S):
                listed, slots = await lister(self._ask)
        except TimeoutError:
            self._miss(ListingLate())
        except (ConnectionFailed, ValueError) as error:
            self._miss(error)
        else:
            self._slots = slots or self._slots
            self._keep(listed, "")

    async def _ask(self, path: str, body: Any) -> Any:
        """`Get` for this server."""
        raw = await self._get(path, b"" if body is None else msgspec.json.encode(body))
        try:
            return msgspec.json.decode(raw)
        except (UnicodeDecodeError, RecursionError):
            raise ValueError(f"its {path} is not UTF-8, or nested without end") from None

    async def _list(self, base: str) -> list[Listed]:
        """Raises ValueError where this is not a list of models, and ConnectionFailed."""
        try:
            async with asyncio.timeout(LISTING_TIMEOUT_S):
                body = await self._get(f"{base}/models")
                listed = self._read(body)
                if listed and is_of_ollama(listed[0].record):
                    listed = await self._details.added(listed, self._ask)
        except TimeoutError:
            raise ListingLate from None
        if not body:
            # mlx_lm server does so while the hub's cache folder does not exist, and serves anyway.
            if self._only:
                return []
            raise ValueError("it hung up instead of listing its models; name one with model=ID")
        if listed is None:
            raise ValueError("its /models is not a list of models")
        return listed

    def _read(self, body: bytes) -> list[Listed] | None:
        """The models of `/models`; None where it is no such list."""
        try:
            decoded = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            return None
        kind = OLLAMA if is_ollama(decoded) else UPSTREAM
        return read_listing(decoded, self.name.replace(UPSTREAM, kind, 1))

    async def _get(self, path: str, body: bytes = b"") -> bytes:
        exchange = await self._client.request("POST" if body else "GET", path, body)
        try:
            answer = await exchange.read_at_most(LISTING_MAX_BYTES)
            if exchange.status != 200:
                reason = failure_in(exchange, answer, self.name).message
                raise (ListingAbsent if exchange.status in NOTHING_THERE else ValueError)(reason)
            return answer
        finally:
            exchange.end()

    def _miss(self, trouble: Exception | None) -> None:
        """There was no list, for this reason."""
        if not isinstance(trouble, ListingLate) or not any(self._in_flight.values()):
            self._keep([], str(trouble))

    def _keep(self, listed: list[Listed], trouble: str) -> None:
        if self._only and not trouble:
            named = [each for each in listed if is_called(each, self._only)]
            listed = named or [unlisted(self._only, self.name)]
        if self._can:
            listed = [
                replace(each, record=replace(each.record, capabilities=self._owners_words(each)))
                for each in listed
            ]
        self._listed = {each.record.model_id: each for each in listed}
        self._aliases = {
            alias: each.record.model_id for each in listed for alias in each.record.aliases
        }
        for gone in [model for model in self._meters if model not in self._listed]:
            del self._meters[gone]
        self._say(trouble)

    def _owners_words(self, each: Listed) -> tuple[str, ...]:
        """What the owner says that it can. Of thinking he has no word."""
        thinks = "thinking" in each.record.capabilities and "thinking" not in self._can
        return (*self._can, "thinking") if thinks else self._can

    def _say(self, trouble: str) -> None:
        """Once, when it changes; of a server that nobody expects, when it comes and goes."""
        if trouble == self._trouble:
            return
        was, self._trouble = self._trouble, trouble
        if self._is_expected:
            LOG.warning("%s: %s", self.name, trouble or "answers again")
        elif not trouble:
            LOG.info("%s: found, with %d models", self.name, len(self._listed))
        elif not was:
            LOG.info("%s: gone (%s)", self.name, trouble)


def _candidate_bases(path: str) -> tuple[str, ...]:
    """Where the API may lie: people give the address with or without /v1."""
    plain = path.rstrip("/")
    return (plain,) if plain.endswith("/v1") else (f"{plain}/v1", plain)
