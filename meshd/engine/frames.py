"""What crosses between the daemon and the worker process of a model.

A private stream, not the mesh's wire: both ends are always the same version. A frame is a 4-byte
length and one msgpack array `[kind, ...]`. Jobs and events travel in their protocol form, so that
nothing is lost on the way and the same bounds hold.

    to the worker:    OPEN path ctx slots threads layers | JOB key fields | CANCEL key
    from the worker:  READY facts | EVENTS [[key, events] ...] | BEAT busy_s | BROKEN message

`key` numbers jobs within one worker. EVENTS carries everything that one pass produced, for all
streams together. BEAT comes from a thread of its own, so it says that the process lives; `busy_s`
is how long the pass at hand has taken, so it also says whether llama.cpp does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from protocol import limits
from protocol.codec import pack, unpack
from protocol.fields import Known, decode_record, encode_record
from protocol.frozen import frozen
from protocol.jobs import EVENTS, Event, Job

OPEN, JOB, CANCEL = 1, 2, 3
READY, EVENTS_OUT, BEAT, BROKEN = 16, 17, 18, 19

LENGTH = struct.Struct("<I")

FRAME_MAX_BYTES = 2 * limits.JOB_MAX_BYTES
"""The largest job, with room for the frame around it."""

BEAT_EVERY_S = 0.2
"""The worker's heartbeat: five chances within the second in which a hang must be noticed."""

_EVENT_LIST = Known(EVENTS, limits.TOKEN_IDS_MAX)


@frozen
class WorkerFacts:
    """What a worker knows once its model is loaded."""

    context_length: int
    slots: int
    load_s: float
    prompt_tps: float
    generation_tps: float
    prefill_tokens: int
    capabilities: tuple[str, ...] = ("chat", "completion")


def frame(kind: int, *values: Any) -> bytes:
    """One frame, ready to be written. Raises ProtocolError when a value is out of bounds."""
    packed = pack([kind, *values])
    return LENGTH.pack(len(packed)) + packed


def job_frame(key: int, job: Job) -> bytes:
    """Asks the worker to run `job`. Raises ProtocolError when it is out of bounds."""
    return frame(JOB, key, encode_record(job))


def events_frame(streams: Sequence[tuple[int, Sequence[Event]]]) -> bytes:
    """What became of jobs since the last such frame."""
    return frame(EVENTS_OUT, [[key, _EVENT_LIST.encode(tuple(each))] for key, each in streams])


def ready_frame(facts: WorkerFacts) -> bytes:
    """The model is loaded and answers."""
    return frame(
        READY,
        facts.context_length,
        facts.slots,
        facts.load_s,
        facts.prompt_tps,
        facts.generation_tps,
        facts.prefill_tokens,
        facts.capabilities,
    )


def read_facts(values: Sequence[Any]) -> WorkerFacts:
    """The facts of a READY frame, its kind included."""
    facts = WorkerFacts(*values[1:])
    return replace(facts, capabilities=tuple(facts.capabilities))


def read_frame(packed: bytes) -> list[Any]:
    """`[kind, ...]`. Raises ProtocolError."""
    values: list[Any] = unpack(packed, FRAME_MAX_BYTES)
    return values


def read_job(fields: Any) -> Job:
    """The job of a JOB frame. Raises ProtocolError."""
    return decode_record(Job, fields)


def read_events(listed: Any) -> tuple[Event, ...]:
    """The events of one stream in an EVENTS frame. Raises ProtocolError."""
    return _EVENT_LIST.decode(listed)
