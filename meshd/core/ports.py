"""The walls between the rules and the world: what an engine, a host probe and the gateway owe.

One port, two implementations, one suite: a local engine, an emulated one and a remote peer all
implement `Engine.generate`, so dispatch does not know which of them it is talking to; the HTTP
server sees the mesh only as a `Gateway`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from protocol.frozen import frozen
from protocol.jobs import Event, Failure, Finish, Job
from protocol.load import ModelLoad, ModelRecord


@frozen
class Note:
    """The gateway's remark on the way of an answer ("continued on attic"). It is no part of the
    answer and never crosses the wire: a dialect shows it as a comment, or not at all."""

    text: str


Batch = Sequence[Event | Note]
"""Events that became available together, in order; never empty. Consumers write one batch at a
time, which is what keeps a fast stream cheap. Only the gateway puts a `Note` among them."""

EventStream = AsyncGenerator[Batch, None]
"""The answer to a job. The last event of the last batch is a `Finish` or a `Failure`, always, and
nothing else is raised. Closing it early (`aclose`) cancels the work and frees its slot. After the
last batch there is nothing to wait for: asked once more, it ends at once."""

ENDINGS = (Finish, Failure)
"""The types of a last event."""


class Engine(Protocol):
    """Something on this machine that can answer jobs for one or more models."""

    name: str
    """Short and stable, for people: `llamacpp`, `upstream http://127.0.0.1:11434`, `emulated`."""

    async def start(self) -> None:
        """Make models available. Raises EngineError, whose text is one line for the owner."""

    async def close(self) -> None:
        """Stop work, end child processes, give memory back. Idempotent; never raises."""

    def models(self) -> Sequence[ModelRecord]:
        """What can be asked for now, warm or not. Cheap: called for every load report."""

    def stats(self) -> Sequence[ModelLoad]:
        """The state of each model of `models()`, in the same order. Cheap."""

    async def load(self, model_id: str) -> None:
        """Make a model warm. Raises EngineError."""

    async def unload(self, model_id: str) -> None:
        """Give a model's memory back. Raises EngineError while it is busy."""

    def generate(self, job: Job) -> EventStream:
        """Answer one job. Concurrency beyond the model's slots queues inside the engine."""
        ...


class EngineError(Exception):
    """An engine cannot start, load or unload; the text says why and what to do, in one line."""


@frozen
class MemoryLimit:
    """A bound on the memory of a control group (a container's, a unit's), or the machine's own."""

    group: str
    """Its path, as the kernel writes it; empty for the whole machine."""
    available_bytes: int
    """To models of this daemon and of all others under the same bound."""


@frozen
class HostReading:
    """What a machine says of itself at one moment. Bytes, ratios in [0, 1]."""

    memory_total_bytes: int
    memory_available_bytes: int
    pressure: str
    """`normal`, `warn` or `critical`: stalls or the kernel's own level, never "used"."""
    cpu_ratio: float = 0.0
    on_battery: bool = False
    hot: bool = False
    owner_active: bool = False
    group: str = ""
    """The control group of this process; empty where there is none with a say in memory."""
    limits: tuple[MemoryLimit, ...] = ()
    """All that hold here: `memory_available_bytes` is the least of them. Empty: it is the only."""


@frozen
class HostFacts:
    """What does not change while the machine is up."""

    system: str
    chip: str
    cores: int
    memory_total_bytes: int
    gpus: tuple[tuple[str, int], ...] = ()
    """Name and usable memory in bytes of each accelerator."""


class HostProbe(Protocol):
    """Reads the machine. Cheap (below 5 ms) and never raises: what cannot be read is neutral."""

    def facts(self) -> HostFacts: ...

    def read(self) -> HostReading: ...


@frozen
class AnswerHead:
    """Who answers and why: becomes the `x-mesh-*` headers."""

    request_id: str
    node_name: str
    node_id: str
    model: str
    attempts: int
    reason: str
    load_age_ms: int
    queue_ms: int
    emulated: bool = False


@frozen
class Answer:
    """An answer whose first body event is here: from now on the client may be written to."""

    head: AnswerHead
    events: EventStream
    whole: Batch | None = None
    """All that `events` would give, where the job asked for no stream; then nobody need read it."""


class RequestFailed(Exception):
    """No node could begin to answer. `failure` is for the dialect to word, `head` for headers."""

    def __init__(self, failure: Failure, head: AnswerHead | None = None) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure
        self.head = head


class Gateway(Protocol):
    """The mesh as the HTTP server sees it."""

    async def submit(self, job: Job) -> Answer:
        """Route a job; returns at the first body event. Raises RequestFailed. Cancelling the call,
        or closing `Answer.events`, frees the slot wherever it is."""
        ...

    def models(self) -> Sequence[Mapping[str, Any]]:
        """Every model of every routable node, merged by id: `{"id", "created", "nodes": [names],
        "context_length", "capabilities", "quantisation", "aliases", "warm", "emulated",
        "size_bytes", "second_hand"}`."""
        ...

    def status(self) -> Mapping[str, Any]:
        """The body of `/mesh/v1/status`."""
        ...

    def members(self) -> Mapping[str, Any]:
        """The body of `/mesh/v1/members`."""
        ...

    def explain(self, job: Job) -> Mapping[str, Any]:
        """The body of `/mesh/v1/explain`: a dry run of the same code as `submit`."""
        ...


class WorkDesk(Protocol):
    """What a node does now and whether it takes more, as the HTTP server sees it."""

    def requests(self, limit: int) -> Mapping[str, Any]:
        """The body of `/mesh/v1/requests`: `{"node", "draining", "running", "waiting", "open",
        "requests": [...], "served": [...]}`; what entered here, newest first, and what is answered
        here now."""
        ...

    def request(self, request_id: str) -> Mapping[str, Any] | None:
        """The body of `/mesh/v1/requests/ID`, with every decision and attempt; None when it is not
        known (any more)."""
        ...

    def drain(self) -> Mapping[str, Any]:
        """Take nothing more, and send what is here to other nodes; returns `duty()` at once."""
        ...

    def resume(self) -> Mapping[str, Any]:
        """Take work again; returns `duty()`."""
        ...

    def duty(self) -> Mapping[str, Any]:
        """`{"node", "draining", "running", "waiting"}`: what is left here."""
        ...


class TrustDesk(Protocol):
    """Who may be in this mesh: pairing, joining and revoking, as the HTTP server sees it.

    Every call may raise TrustRefused, whose text is one line for the person who asked.
    """

    async def invite(self, *, token: bool) -> Mapping[str, Any]:
        """Open the door: `{"code" or "token", "expires_s", "door"}`; door is a port."""
        ...

    def invitations(self) -> Mapping[str, Any]:
        """What is open now."""
        ...

    async def withdraw(self) -> None:
        """Close the door; every invitation is void."""

    async def join(self, code: str, at: str | None) -> Mapping[str, Any]:
        """Enter the mesh that gave this code or token; `at` is `host:port` of a member, None to
        look for one: `{"mesh", "sponsors": [names]}`."""
        ...

    async def revoke(self, node: str) -> Mapping[str, Any]:
        """Put a node (name or id) out of the mesh and change the mesh key:
        `{"node", "told": [names], "silent": [names], "epoch"}`."""
        ...


class TrustRefused(Exception):
    """A trust request was understood and refused, or failed; the text says why and what to do."""
