"""Every message of version 1, and the records inside them.

Two planes, two sockets (SPEC.md, "Sockets"). The control plane carries membership: small frames
that are worthless when late, so they are dropped rather than queued. The relay plane carries
forwarded requests: frames that must all arrive, in order, under a credit window.

Rules that the declarations below cannot show:

- a node speaks only for itself in `Hello`, `Heartbeat`, `Beat` and `Capacity`: the subject is the
  envelope's sender. `Update` is hearsay about anybody;
- `incarnation` is raised by its owner alone. It starts at the wall clock in milliseconds when the
  node starts, is raised past any value the node hears of itself, and by one to refute;
- times are durations in seconds. No wall clock crosses the wire.

Ids are append-only. Control ids are 1-31, relay ids 32-63.
"""

from __future__ import annotations

from typing import Any

from protocol import limits
from protocol.fields import (
    Bool,
    Bytes,
    Choice,
    Hex,
    Int,
    Known,
    ListOf,
    Optional,
    Record,
    Text,
    record,
    wire,
)
from protocol.jobs import EVENTS, Event
from protocol.load import CapacityRecord, LoadRecord, ModelLoad
from protocol.trust import TrustSync, TrustSynced

NODE_ID = Hex(limits.NODE_ID_BYTES)
PUBLIC_KEY = Hex(limits.PUBLIC_KEY_BYTES)
LINE = Text(limits.TEXT_MAX_CHARS)
REQUEST_ID = Text(limits.REQUEST_ID_MAX_CHARS, shortest=1)
COUNT = Int(0, 2**31 - 1)
PORT = Int(1, 65_535)

MEMBER_STATES = ("alive", "suspect", "dead", "left")


@record
class Endpoint:
    """One way to reach a node. `host` is an address, with `%scope` for link-local IPv6."""

    host: str = wire(Text(limits.ADDRESS_MAX_CHARS, shortest=1, ascii_only=True))
    control_port: int = wire(PORT)
    relay_port: int = wire(PORT)


@record
class Update:
    """What the sender believes of one member. Precedence: SPEC.md, "State precedence"."""

    node_id: str = wire(NODE_ID)
    state: str = wire(Choice(*MEMBER_STATES))
    incarnation: int = wire(Int())
    boot_id: int = wire(Int())
    name: str = wire(Text(limits.NAME_MAX_CHARS))
    public_key: str = wire(PUBLIC_KEY)
    endpoints: tuple[Endpoint, ...] = wire(ListOf(Record(Endpoint), limits.ENDPOINTS_MAX))
    accuser: str | None = wire(Optional(NODE_ID), default=None)


UPDATES = ListOf(Record(Update), limits.UPDATES_MAX)


@record
class Hello:
    """First words on a new connection, and the answer to them: everything about the sender."""

    myself: Update = wire(Record(Update))
    capacity: CapacityRecord = wire(Record(CapacityRecord))
    load: LoadRecord = wire(Record(LoadRecord))
    answer_wanted: bool = wire(Bool())


@record
class Heartbeat:
    """The sender is alive at `incarnation`, and this is its load."""

    incarnation: int = wire(Int())
    capacity_version: int = wire(Int())
    load: LoadRecord = wire(Record(LoadRecord))
    updates: tuple[Update, ...] = wire(UPDATES, default=())


@record
class Capacity:
    """The sender's capacity record, because it changed or because somebody asked."""

    capacity: CapacityRecord = wire(Record(CapacityRecord))


@record
class Ping:
    """A probe of `target`; only the process that is `target` answers.

    Like its answer it says which records of its sender's hold, as a `Beat` does; 0 where it does
    not say.
    """

    nonce: int = wire(Int())
    target: str = wire(NODE_ID)
    updates: tuple[Update, ...] = wire(UPDATES, default=())
    capacity_version: int = wire(Int(), default=0)
    load_sequence: int = wire(Int(), default=0)


@record
class Ack:
    """The answer to the Ping or PingReq of the same nonce. `target` is who was found alive."""

    nonce: int = wire(Int())
    target: str = wire(NODE_ID)
    updates: tuple[Update, ...] = wire(UPDATES, default=())
    capacity_version: int = wire(Int(), default=0)
    load_sequence: int = wire(Int(), default=0)


@record
class PingReq:
    """Please probe `target` for me."""

    nonce: int = wire(Int())
    target: str = wire(NODE_ID)
    updates: tuple[Update, ...] = wire(UPDATES, default=())


@record
class Nack:
    """I heard your PingReq in time, but `target` did not answer me: the asker's link is fine."""

    nonce: int = wire(Int())
    target: str = wire(NODE_ID)


@record
class Gossip:
    """Updates, with nothing else to ride on."""

    updates: tuple[Update, ...] = wire(UPDATES)


@record
class DigestEntry:
    """The version of one member that the sender holds."""

    node_id: str = wire(NODE_ID)
    state: str = wire(Choice(*MEMBER_STATES))
    incarnation: int = wire(Int())


@record
class Pull:
    """Repair: this is what I hold; send me what is newer."""

    digest: tuple[DigestEntry, ...] = wire(ListOf(Record(DigestEntry), limits.DIGEST_ENTRIES_MAX))


@record
class CapacityWanted:
    """Please send your Capacity: I hold none, or an older version."""

    held_version: int = wire(Int())


@record
class Beat:
    """The sender is alive at `incarnation`; its load is still the record of `load_sequence`.

    A third of a Heartbeat's size: what an idle mesh says.
    """

    incarnation: int = wire(Int())
    capacity_version: int = wire(Int())
    load_sequence: int = wire(Int())


@record
class LoadWanted:
    """Please send a Heartbeat: I hold no load record of yours, or another than you speak of."""

    held_sequence: int = wire(Int())


@record
class JobOpen:
    """Opens a forwarded request: the encoded job is `total_bytes` long, this is its first chunk.

    `credit` is how many event frames may be sent before more is granted.
    """

    request_id: str = wire(REQUEST_ID)
    total_bytes: int = wire(Int(1, limits.JOB_MAX_BYTES))
    credit: int = wire(Int(1, 65_535))
    chunk: bytes = wire(Bytes(limits.RELAY_CHUNK_BYTES))


@record
class JobChunk:
    """The next piece of the encoded job; `index` counts from 1 (JobOpen holds piece 0)."""

    request_id: str = wire(REQUEST_ID)
    index: int = wire(COUNT)
    chunk: bytes = wire(Bytes(limits.RELAY_CHUNK_BYTES))


@record
class JobEvents:
    """What became of the job so far; `index` counts frames from 0, without gaps."""

    request_id: str = wire(REQUEST_ID)
    index: int = wire(COUNT)
    events: tuple[Event, ...] = wire(Known(EVENTS, limits.EVENTS_MAX))


@record
class Credit:
    """The asker has taken in event frames; `frames` more may be sent."""

    request_id: str = wire(REQUEST_ID)
    frames: int = wire(Int(1, 65_535))


@record
class Cancel:
    """The asker wants no more of this request: free its slot."""

    request_id: str = wire(REQUEST_ID)


@record
class RelayPing:
    """Is the relay socket, and the loop behind it, alive?"""

    nonce: int = wire(Int())


@record
class RelayPong:
    """It is. Same nonce."""

    nonce: int = wire(Int())


@record
class LoadProbe:
    """How is this model doing right now? Asked of the best two when their records are near."""

    nonce: int = wire(Int())
    model_id: str = wire(Text(limits.TEXT_MAX_CHARS, shortest=1))


@record
class LoadProbed:
    """The answer to the LoadProbe of the same nonce; no load when the model is not offered."""

    nonce: int = wire(Int())
    load: ModelLoad | None = wire(Optional(Record(ModelLoad)))


CONTROL_KINDS: dict[int, type[Any]] = {
    1: Hello,
    2: Heartbeat,
    3: Capacity,
    4: Ping,
    5: Ack,
    6: PingReq,
    7: Nack,
    8: Gossip,
    9: Pull,
    10: CapacityWanted,
    11: Beat,
    12: LoadWanted,
}

RELAY_KINDS: dict[int, type[Any]] = {
    32: JobOpen,
    33: JobChunk,
    34: JobEvents,
    35: Credit,
    36: Cancel,
    37: RelayPing,
    38: RelayPong,
    39: TrustSync,
    40: TrustSynced,
    41: LoadProbe,
    42: LoadProbed,
}

KINDS: dict[int, type[Any]] = CONTROL_KINDS | RELAY_KINDS
KIND_OF: dict[type[Any], int] = {cls: kind for kind, cls in KINDS.items()}

ControlMessage = (
    Hello
    | Heartbeat
    | Capacity
    | Ping
    | Ack
    | PingReq
    | Nack
    | Gossip
    | Pull
    | CapacityWanted
    | Beat
    | LoadWanted
)
RelayMessage = (
    JobOpen | JobChunk | JobEvents | Credit | Cancel
    | RelayPing | RelayPong | TrustSync | TrustSynced | LoadProbe | LoadProbed
)  # fmt: skip
Message = ControlMessage | RelayMessage
