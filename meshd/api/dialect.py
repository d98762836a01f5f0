"""The wall between the ways of asking and everything else: what one dialect owes.

OpenAI's chat, completions, embeddings and responses, Anthropic's messages and Ollama's two verbs
are each one `Dialect`: pure functions from a JSON object to a `Job`, and from the job's events back
to bytes. A dialect knows no HTTP beyond a status and header lines, no gateway, no clock and no
loop. Whoever answers a route (`meshd.api.answers`) does the rest, once for all of them:

    asked   = dialect.read(body, asker)          # ApiError where it cannot be meant
    answer  = await gateway.submit(asked.job)    # RequestFailed becomes ApiError
    opening = Opening(...)                       # who answers, when
    asked.job.stream:      encoder = dialect.stream(asked, opening); encoder.encode(batch) ...
    not asked.job.stream:  whole = dialect.whole(asked, opening); whole.add(batch) ...; whole.body()
    ApiError anywhere:     status, body = dialect.refuse(error, request_id)

**Failures.** Before the first byte a failure is an HTTP status with the body that `refuse` makes;
that holds for errors which never reach `read` too (a missing key, a body too large): the path says
whose shape they take. After the first byte it is an event of the stream: `encode` is given a
`Failure`, writes it in the dialect's own way and sets `ended`. It must manage that in any state,
even before anything else was encoded and after an earlier `encode` raised.

**What is no part of an answer.** A job that waits yields `Queued` and the gateway may remark on
what it did (`Note`). Encoders hand every event they do not know to `notice`, which makes a comment
of these and nothing of others; a dialect without comments (NDJSON) writes nothing.

**Silence.** While nothing comes for a while, `heartbeat` is written: `: ping` unless the dialect
has a better word. It must not change the state of the answer; it may come before the first batch.

**What needs no job** (counting tokens, listing or showing models) is a plain function in the
dialect's module, from the decoded body and `Gateway.models()` to a `Reply`; and where a body turns
out to ask for nothing that must be computed, `read` may return a `Reply` too.

Several choices (`n` above 1) are several jobs; only OpenAI's older two dialects have them, so the
others leave `Asked.others` empty.

The values that every request makes are msgspec's `Struct`s: before Python 3.13, making one takes
half the instructions of a dataclass, and a quarter where arguments are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from meshd.api import sse
from meshd.api.replies import Refuse, Reply
from meshd.core.ports import AnswerHead, Batch, Note
from protocol.frozen import frozen
from protocol.jobs import Event, Failure, Job, Queued


class Asker(msgspec.Struct, frozen=True):
    """What is known of a request beside its body: all of it goes into the `Job`."""

    request_id: str
    session: str = ""
    """The client's own name of the conversation, from a header; a body may name a better one."""
    person: str = ""
    """Whose share of the mesh this is: `Job.person`."""
    priority: str = "interactive"
    """From a header. A body may lower it to `batch`, never raise it."""
    content_type: str = ""
    """Of the body, where somebody asks; JSON is read as JSON whatever it says."""


class Asked(msgspec.Struct, frozen=True):
    """A request that has been read. A dialect that must remember more derives its own class."""

    job: Job
    others: tuple[Job, ...] = ()
    """The further jobs of a request for several choices, in order."""
    lines: str = ""
    """Header lines of the answer (each ending in CRLF), for what was changed in what was asked."""


class Opening(msgspec.Struct, frozen=True):
    """What is known when an answer begins."""

    request_id: str
    created_s: float
    """Unix time; most dialects print its whole seconds."""
    head: AnswerHead
    """Who answers; `head.model` is the model that really does, `head.emulated` that none does."""

    @property
    def created(self) -> int:
        """Unix time in whole seconds."""
        return int(self.created_s)


class EventEncoder(Protocol):
    """Batches of events to the bytes of one dialect's stream."""

    ended: bool
    """A Finish or a Failure has been written: nothing may follow."""

    def encode(self, batch: Batch) -> bytes:
        """The bytes of one batch, `b""` when it holds nothing to show."""
        ...

    def heartbeat(self) -> bytes:
        """What says "still here" while nothing comes; `b""` where the dialect has no word."""
        ...


class AnswerBuilder(Protocol):
    """Batches of events to one whole answer of one dialect."""

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure or the answer is too long."""
        ...

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished."""
        ...


class SseEncoder:
    """What every encoder of server-sent events shares: derive from it."""

    ended = False

    def heartbeat(self) -> bytes:
        """A comment, which every client skips."""
        return sse.PING


A = TypeVar("A", bound=Asked)

SSE_LINES = "".join([f"{name}: {value}\r\n" for name, value in sse.HEADERS])
"""Header lines of a stream of server-sent events."""

NDJSON_LINES = "content-type: application/x-ndjson\r\ncache-control: no-cache\r\n"
"""Header lines of a stream of JSON objects, one to a line."""


@frozen
class Dialect(Generic[A]):
    """One way to ask and to be answered. All members are pure."""

    read: Callable[[Mapping[str, Any], Asker], A | Reply]
    """The decoded body to what is asked, or at once the answer. Raises ApiError (4xx); fills
    request_id, session, person and priority of the job from the asker. The mapping may be kept but
    not changed."""
    stream: Callable[[A, Opening], EventEncoder]
    """Called only where `asked.job.stream`."""
    whole: Callable[[A, Opening], AnswerBuilder]
    refuse: Refuse
    """An error and the request id to HTTP status and JSON body in the dialect's shape. Headers of
    the error (`retry-after` ...) are written by the caller."""
    stream_lines: str = SSE_LINES
    """Header lines of a stream: its content type and how to pass it on."""


NOTICES = frozenset({Note, Queued})
"""Events that are no part of an answer."""

PREAMBLE = frozenset({Failure, Note, Queued})
"""Events before which, or instead of which, there is no answer."""


def notice(event: Event | Note) -> bytes:
    """The comment that stands for an event which is no part of an answer, `b""` for all others."""
    if type(event) is Queued:
        return sse.comment(f"queued position={event.position} wait_s={event.wait_s:.1f}")
    if type(event) is Note:
        return sse.comment(event.text)
    return b""
