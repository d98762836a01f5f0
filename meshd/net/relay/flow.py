"""The rules of one forwarded request, without a socket, a loop or a clock.

A request crosses the relay like this:

    asker                                   server
    JobOpen(total, credit=W, chunk 0)  ->   reserve `total` bytes, collect
    JobChunk(1..n)                     ->   whole: answer it here, never forward it again
                                       <-   JobEvents(0), JobEvents(1) ...   at most W ahead
    Credit(frames)                     ->   as the asker's reader takes them in
    Cancel                             ->   free the slot      (or the last event ends it)

Five rules follow, and each is one small piece of this module:

- *A body is paid for before it is sent.* `Assemblies` reserves the announced size, so that many
  half-sent bodies cannot fill the memory; what does not fit is refused at once.
- *A large body does not hold up a small one.* `Outbox` hands out one frame of each waiting body in
  turn, small frames first, and makes a frame only when the socket can take it, which holds few.
- *A batch is a frame.* Whatever the local answer yields together crosses together, at once: no
  timer waits for more. Only what exceeds a bound of the wire is cut (`Parts`).
- *The reader sets the pace.* The server may be W frames ahead of what the reader took; then it
  stops pulling from the engine. Credit returns in halves of W, one frame for many (`Intake`).
- *Nothing is lost without a word.* Event frames are numbered without gaps; a gap ends the request
  as a failure rather than as an answer with a hole.

`Seal` and `Inspection` write and check the envelope. A connection carries one boot of one node:
its sequence only grows, another sender or boot on it is refused, so a replayed frame does nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from meshd.core.ports import ENDINGS
from meshd.net.relay.refusals import overloaded
from protocol import limits
from protocol.codec import decode_relay, encode
from protocol.envelope import Envelope
from protocol.errors import ProtocolError
from protocol.jobs import Event, Failure, ReasoningDelta, TextDelta, ToolCallDelta
from protocol.messages import JobChunk, JobOpen, RelayMessage

PIECE_BYTES = 64 * 1024
"""Of a body after its first frame, which may be larger and holds most bodies whole. What is said
meanwhile waits behind a few of them: each takes 13 ms at 40 Mbit/s."""

ASSEMBLIES_MAX = 64
"""Bodies being collected at once. Most bodies fit into JobOpen and never wait here."""

ASSEMBLY_MAX_BYTES = 4 * limits.JOB_MAX_BYTES
"""Bytes promised to bodies being collected: four of the largest, 64 MiB, 1 % of a 8 GB machine."""

ASSEMBLY_TIMEOUT_S = 15.0
"""A body must be whole by then: 16 MiB at 10 Mbit/s take 13.4 s."""

OUTBOX_MAX_BYTES = 4 * limits.JOB_MAX_BYTES
"""Bodies waiting for one peer's socket. A peer this far behind would not answer soon anyway."""

OUTBOX_MAX_NOTES = 1_024
"""Small frames (Credit, Cancel, pings, refusals) waiting for one socket: two for each of the 256
requests that may be open, twice over."""

CREDIT_MAX = 65_535
"""Frames of credit one request can hold: what one Credit message can grant."""

K = TypeVar("K", bound=Hashable)


class Refused(Exception):
    """A request that will not be taken; `failure` says why, to the person who asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class FlowError(Exception):
    """The other side broke a rule of one request; the text says which."""


class Rejected(Exception):
    """A well-formed frame that has no business here. `reason` is the counter's name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Seal:
    """Puts messages of this node into frames, numbered from 0 over all connections that share it:
    on each of them the numbers grow, also after its session was forgotten and learned again."""

    __slots__ = ("boot_id", "mesh", "sender", "sequence")

    def __init__(self, mesh: str, sender: str, boot_id: int) -> None:
        self.mesh = mesh
        self.sender = sender
        self.boot_id = boot_id
        self.sequence = 0

    def again(self) -> Seal:
        """The same node's seal for another connection."""
        return Seal(self.mesh, self.sender, self.boot_id)

    def frame(self, message: RelayMessage) -> bytes:
        """One frame. Raises ProtocolError, without using up a number."""
        frame = encode(Envelope(self.mesh, self.sender, self.boot_id, self.sequence), message)
        self.sequence += 1
        return frame


class Inspection:
    """Opens the frames of one connection, whose other end has proven to be `sender`."""

    __slots__ = ("boot_id", "mesh", "sender", "sequence")

    def __init__(self, mesh: str, sender: str) -> None:
        self.mesh = mesh
        self.sender = sender
        self.boot_id: int | None = None
        self.sequence = -1

    def message(self, frame: bytes) -> RelayMessage:
        """The message inside. Raises ProtocolError, or Rejected."""
        envelope, message = decode_relay(frame)
        if envelope.sender != self.sender:
            raise Rejected("sender_mismatch")
        if envelope.mesh != self.mesh:
            raise Rejected("foreign_mesh")
        if envelope.boot_id != self.boot_id:
            if self.boot_id is not None:
                raise Rejected("replayed")
            self.boot_id = envelope.boot_id
        if envelope.sequence <= self.sequence:
            raise Rejected("replayed")
        self.sequence = envelope.sequence
        return message  # type: ignore[no-any-return]


def body_messages(request_id: str, packed: bytes, credit: int) -> Iterator[RelayMessage]:
    """The messages that carry one encoded job, made one at a time."""
    first = limits.RELAY_CHUNK_BYTES
    yield JobOpen(request_id, len(packed), credit, packed[:first])
    for index, start in enumerate(range(first, len(packed), PIECE_BYTES), 1):
        yield JobChunk(request_id, index, packed[start : start + PIECE_BYTES])


@dataclass(slots=True)
class Assembly:
    """A body of which some is here. `until` is the caller's clock, seconds."""

    opened: JobOpen
    until: float
    chunks: list[bytes]
    missing_bytes: int


class Assemblies(Generic[K]):
    """The bodies being collected, by a key of the caller's; bounded in count, bytes and time."""

    def __init__(self) -> None:
        self.waiting: dict[K, Assembly] = {}
        self.reserved_bytes = 0

    def open(self, key: K, message: JobOpen, now: float) -> bytes | None:
        """The whole body when one chunk holds it, else None. Raises Refused, or FlowError."""
        missing = message.total_bytes - len(message.chunk)
        if missing < 0:
            raise FlowError("the first piece is longer than the whole request")
        if missing == 0:
            return message.chunk
        promised = self.reserved_bytes + message.total_bytes
        if len(self.waiting) >= ASSEMBLIES_MAX or promised > ASSEMBLY_MAX_BYTES:
            raise Refused(
                overloaded("this node already receives as many large requests as it has room for")
            )
        self.reserved_bytes = promised
        until = now + ASSEMBLY_TIMEOUT_S
        self.waiting[key] = Assembly(message, until, [message.chunk], missing)
        return None

    def add(self, key: K, message: JobChunk) -> tuple[JobOpen, bytes] | None:
        """What opened the request and the whole body, once it is whole.

        Raises KeyError for a request that is not being collected, and FlowError, after which the
        request is forgotten, for a piece that does not follow the last.
        """
        assembly = self.waiting[key]
        if message.index != len(assembly.chunks) or not message.chunk:
            self.drop(key)
            empty = "" if message.chunk else "empty "
            raise FlowError(
                f"{empty}piece {message.index} came where {len(assembly.chunks)} was due"
            )
        assembly.missing_bytes -= len(message.chunk)
        if assembly.missing_bytes < 0:
            self.drop(key)
            raise FlowError("the pieces are longer than the whole request")
        assembly.chunks.append(message.chunk)
        if assembly.missing_bytes:
            return None
        self.drop(key)
        return assembly.opened, b"".join(assembly.chunks)

    def drop(self, key: K) -> bool:
        """Forget a request; whether there was one."""
        assembly = self.waiting.pop(key, None)
        if assembly is None:
            return False
        self.reserved_bytes -= assembly.opened.total_bytes
        return True

    def overdue(self, now: float) -> list[K]:
        """The requests that should have been whole by now; the caller drops them."""
        return [key for key, assembly in self.waiting.items() if assembly.until <= now]


class Outbox:
    """What waits for one socket: small frames first, then bodies, a frame of each in turn."""

    def __init__(self) -> None:
        self._notes: deque[bytes] = deque()
        self._bodies: deque[tuple[str, Iterator[bytes], int]] = deque()
        self.waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._notes or self._bodies)

    def note(self, frame: bytes) -> bool:
        """Queue a small frame; False when there is no room, and it is lost."""
        if len(self._notes) >= OUTBOX_MAX_NOTES:
            return False
        self._notes.append(frame)
        return True

    def body(self, request_id: str, frames: Iterator[bytes], size_bytes: int) -> None:
        """Queue a body, whose frames are made when they can be sent. Raises Refused."""
        if self.waiting_bytes + size_bytes > OUTBOX_MAX_BYTES:
            raise Refused(overloaded("large requests already wait for a slow connection there"))
        self.waiting_bytes += size_bytes
        self._bodies.append((request_id, frames, size_bytes))

    def next(self) -> bytes | None:
        """The next frame to send, None when nothing waits."""
        if self._notes:
            return self._notes.popleft()
        while self._bodies:
            request_id, frames, size_bytes = self._bodies.popleft()
            frame = next(frames, None)
            if frame is not None:
                self._bodies.append((request_id, frames, size_bytes))
                return frame
            self.waiting_bytes -= size_bytes
        return None

    def drop(self, request_id: str) -> None:
        """Send no more of this body."""
        for body in self._bodies:
            if body[0] == request_id:
                self._bodies.remove(body)
                self.waiting_bytes -= body[2]
                return


class Parts:
    """A batch on its way out: whole if the wire's bounds allow, else cut as little as possible."""

    __slots__ = ("_parts",)

    def __init__(self, events: Sequence[Event]) -> None:
        most = limits.EVENTS_MAX
        starts = range(0, len(events), most)
        self._parts = deque(tuple(events[start : start + most]) for start in starts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def next(self, frame: Callable[[tuple[Event, ...]], bytes]) -> bytes:
        """`frame` of the next part; `frame` raises ProtocolError("length") for what is too long.

        Raises ProtocolError when one event alone is out of bounds and cannot be cut.
        """
        while True:
            part = self._parts.popleft()
            try:
                return frame(part)
            except ProtocolError as error:
                halves = _halves(part)
                if error.code != "length" or halves is None:
                    raise
                self._parts.extendleft(reversed(halves))


def _halves(part: tuple[Event, ...]) -> tuple[tuple[Event, ...], tuple[Event, ...]] | None:
    if len(part) > 1:
        middle = len(part) // 2
        return part[:middle], part[middle:]
    event = part[0]
    if isinstance(event, ToolCallDelta):
        cut = len(event.arguments) // 2
        rest: Event = ToolCallDelta(event.index, "", "", event.arguments[cut:])
        return ((replace(event, arguments=event.arguments[:cut]),), (rest,)) if cut else None
    if isinstance(event, TextDelta | ReasoningDelta):
        cut = len(event.text) // 2
        rest = replace(event, text=event.text[cut:])
        return ((type(event)(event.text[:cut]),), (rest,)) if cut else None
    return None


class Intake:
    """The asker's end of one answer: frames in order, credit out, memory bounded by the window."""

    __slots__ = ("_events", "_frames", "_next_index", "_owed", "_window", "ended", "outstanding")

    def __init__(self, window: int = limits.RELAY_CREDIT_FRAMES) -> None:
        self._window = window
        self._next_index = 0
        self._events: list[Event] = []
        self._frames = 0
        self._owed = 0
        self.outstanding = window
        """Frames the other side may still send."""
        self.ended = False
        """Whether the last event is in; nothing is accepted after it."""

    def __bool__(self) -> bool:
        """Whether `take` is worth calling; frames of unknown events count, as their credit does."""
        return self._frames > 0 or bool(self._events)

    def accept(self, index: int, events: Iterable[Event]) -> None:
        """Take in one frame. Raises FlowError for a gap, or a frame beyond the credit."""
        if index != self._next_index:
            raise FlowError(f"part {index} of the answer came where {self._next_index} was due")
        if self.outstanding == 0:
            raise FlowError("the answer came faster than it was asked for")
        self._next_index += 1
        self.outstanding -= 1
        self._frames += 1
        for event in events:
            self._events.append(event)
            if isinstance(event, ENDINGS):
                self.ended = True
                return

    def fail(self, failure: Failure) -> None:
        """End the answer with what is here and this failure; no effect once it has ended."""
        if not self.ended:
            self.ended = True
            self._events.append(failure)

    def take(self) -> tuple[list[Event], int]:
        """Everything that is here, and how many frames of credit to grant now (often 0)."""
        events, self._events = self._events, []
        self._owed += self._frames
        self._frames = 0
        if self.ended or 2 * self._owed < self._window:
            return events, 0
        grant, self._owed = self._owed, 0
        self.outstanding += grant
        return events, grant
