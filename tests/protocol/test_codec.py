"""Frames: every message round, every other byte string refused, at a bounded cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.codec import HEADER, decode, decode_control, decode_job, decode_relay, encode
from protocol.envelope import Envelope
from protocol.errors import ProtocolError, UnknownMessageError
from protocol.fields import encode_record
from protocol.inventory import least, records, typical
from protocol.jobs import Job, TextDelta
from protocol.messages import CONTROL_KINDS, KINDS, RELAY_KINDS, JobChunk, JobEvents, Ping
from tests.protocol import oracle
from tests.protocol.strategies import (
    FRAMES,
    MESSAGES,
    MSGPACK,
    damaged,
    outcome,
    record_of,
    refusal,
)

ENVELOPE = Envelope("mesh", "00" * limits.NODE_ID_BYTES, 1, 2)
PING = encode(ENVELOPE, Ping(7, "ff" * limits.NODE_ID_BYTES))

VERDICTS = {*ProtocolError.CODES, "accepted"}

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64 - 1, 2.5, -0.5, 1e300),
    *("", "x", "x" * 33, "x" * 300, "é", b"", b"x" * 16, b"x" * 300),
    *([], [1], ["x"], [[1]], [None] * 5, {}, {"a": 1}),
)
"""Values that fit some fields and offend most."""


def tower(declared: int, levels: int, size_bytes: int) -> bytes:
    """A frame of nested lists that each claim to hold `declared` elements."""
    lists = (b"\xdd" + declared.to_bytes(4, "big")) * levels
    return (HEADER + lists).ljust(size_bytes, b"\0")


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that Python held at once during a call that is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def verdicts(cls: type[Any], raw: list[Any]) -> tuple[bool, bool]:
    """Whether we, and whether msgspec, accept the wire form of a record."""
    packed = codec.pack(raw)
    unpacked = codec.unpack(packed, limits.JOB_MAX_BYTES)
    ours = refusal(codec.decode_record, cls, unpacked) == "accepted"
    return ours, oracle.accepts(cls, packed)


@given(record_of(Envelope), MESSAGES)
def test_every_message_survives_the_journey(envelope: Envelope, message: Any) -> None:
    """What is encoded decodes to equal values, for values anywhere within the bounds."""
    assert decode(encode(envelope, message)) == (envelope, message)


@given(record_of(Job))
def test_every_job_survives_the_journey(job: Job) -> None:
    """A job comes out of its packed form as it went in."""
    assert decode_job(codec.encode_job(job)) == job


@given(st.binary(max_size=200) | st.binary(max_size=200).map(HEADER.__add__))
def test_any_bytes_decode_or_raise_the_one_error(frame: bytes) -> None:
    """Garbage, with and without our header, never raises anything but ProtocolError."""
    assert {refusal(decode, frame), refusal(decode_job, frame)} <= VERDICTS


@given(damaged())
def test_a_damaged_frame_decodes_or_raises_the_one_error(frame: bytes) -> None:
    """Changed and cut frames never raise anything else; what they still say can be said again."""
    for envelope, message in outcome(decode, frame):
        assert decode(encode(envelope, message)) == (envelope, message)


@given(st.sampled_from(sorted(KINDS)), MSGPACK)
def test_any_structure_decodes_or_raises_the_one_error(kind: int, fields: Any) -> None:
    """A frame that is sound up to the message may hold anything there."""
    frame = HEADER + msgpack.packb([*encode_record(ENVELOPE), kind, fields])
    assert refusal(decode, frame) in VERDICTS


@given(FRAMES)
def test_no_beginning_of_a_frame_is_a_frame(frame: bytes) -> None:
    """A frame cut anywhere is refused."""
    assert not any(outcome(decode, frame[:end]) for end in range(len(frame)))


@given(FRAMES, st.binary(min_size=1, max_size=9))
def test_nothing_may_follow_a_frame(frame: bytes, more: bytes) -> None:
    """A frame is one array; two frames are never read as one."""
    assert refusal(decode, frame + more) == "trailing"


@pytest.mark.parametrize("cls", records())
def test_msgspec_reads_and_writes_the_same_bytes(cls: type[Any]) -> None:
    """Another implementation, declared from the same fields, gives back our bytes exactly."""
    examples = [codec.pack(encode_record(make(cls))) for make in (least, typical)]
    assert [oracle.again(cls, packed) for packed in examples] == examples


@given(st.sampled_from(records()), st.data())
def test_msgspec_agrees_on_every_value(cls: type[Any], data: st.DataObject) -> None:
    """The same holds for values anywhere within the bounds."""
    packed = codec.pack(encode_record(data.draw(record_of(cls))))
    assert oracle.again(cls, packed) == packed


@pytest.mark.parametrize("cls", records())
def test_msgspec_agrees_on_what_to_refuse(cls: type[Any]) -> None:
    """For an odd value in each place and for each early end, both accept or both refuse."""
    whole = encode_record(typical(cls))
    swapped = [
        [*whole[:place], odd, *whole[place + 1 :]] for place in range(len(whole)) for odd in ODD
    ]
    cut = [whole[:end] for end in range(len(whole) + 1)]
    longer = [[*whole, odd] for odd in ODD]
    assert [raw for raw in swapped + cut + longer if len(set(verdicts(cls, raw))) > 1] == []


def test_each_plane_knows_its_own_messages_only() -> None:
    """A message on the other plane's socket is unknown there, and counted as such."""
    control = [encode(ENVELOPE, typical(cls)) for cls in CONTROL_KINDS.values()]
    relay = [encode(ENVELOPE, typical(cls)) for cls in RELAY_KINDS.values()]
    assert {refusal(decode_control, frame) for frame in control} == {"accepted"}
    assert {refusal(decode_relay, frame) for frame in relay} == {"accepted"}
    assert {refusal(decode_control, frame) for frame in relay} == {"unknown"}
    assert {refusal(decode_relay, frame) for frame in control} == {"unknown"}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"MSH", "magic"),
        (b"MSHD", "magic"),
        (b"HTTP/1.1 400", "magic"),
        (limits.MAGIC + b"\2" + PING[len(HEADER) :], "version"),
        (HEADER + b"\x80", "type"),
        (HEADER + b"\x95" + b"\0" * 5, "truncated"),
        (HEADER + b"\x96" + b"\0" * 6, "type"),
        (HEADER + msgpack.packb([*encode_record(ENVELOPE), True, []]), "type"),
        (HEADER + msgpack.packb([*encode_record(ENVELOPE), 4, None]), "type"),
        (HEADER + bytes(limits.RELAY_FRAME_MAX_BYTES), "length"),
    ],
)
def test_a_frame_is_checked_from_the_outside_in(frame: bytes, code: str) -> None:
    """Magic, version, length, array, envelope, id, fields: the first that is wrong is named."""
    assert refusal(decode, frame) == code


def test_an_unknown_message_says_its_id() -> None:
    """A receiver can count by id what it does not understand."""
    with pytest.raises(UnknownMessageError) as unknown:
        decode(HEADER + msgpack.packb([*encode_record(ENVELOPE), 31, []]))
    assert unknown.value.kind == 31


def test_elements_after_the_message_are_skipped() -> None:
    """A later version may append to the frame itself."""
    frame = HEADER + msgpack.packb([*msgpack.unpackb(PING[len(HEADER) :]), "more", 1])
    assert decode(frame) == decode(PING)


def test_a_frame_above_its_limit_is_not_sent() -> None:
    """The encoder refuses a frame that the receiver's socket would drop unread."""
    long = JobEvents("r", 0, (TextDelta("x" * limits.RELAY_FRAME_MAX_BYTES),))
    assert refusal(encode, ENVELOPE, long) == "length"


def test_a_control_message_has_the_control_limit_on_either_plane() -> None:
    """Decoding without knowing the plane gives a control message no more room."""
    padding = b"x" * limits.CONTROL_FRAME_MAX_BYTES
    frame = HEADER + msgpack.packb([*msgpack.unpackb(PING[len(HEADER) :]), padding])
    assert refusal(decode, frame) == "length"
    assert codec.frame_limit(4) < codec.frame_limit(32)


def test_the_largest_chunk_fits_a_relay_frame() -> None:
    """A chunk at its limit, with the longest id, leaves room for the rest of the frame."""
    chunk = JobChunk("é" * limits.REQUEST_ID_MAX_CHARS, 63, bytes(limits.RELAY_CHUNK_BYTES))
    assert decode_relay(encode(ENVELOPE, chunk))[1] == chunk


def test_a_job_above_its_limit_is_not_sent() -> None:
    """16 MiB are 16 MiB packed, whatever the job is made of."""
    assert refusal(codec.encode_job, Job("r", "chat", "m", prompt="é" * 2**23)) == "length"


def test_what_msgpack_cannot_express_is_not_sent() -> None:
    """`pack` has the same one error for values that never should have come so far."""
    assert [refusal(codec.pack, odd) for odd in (object(), 2**64, "\ud800")] == ["type"] * 3


def test_a_tower_of_lists_costs_a_control_receiver_little() -> None:
    """A thousand nested lists that claim all they may are refused within a few megabytes."""
    claims = tower(limits.CONTROL_LIST_MAX, 1_000, limits.CONTROL_FRAME_MAX_BYTES)
    assert peak_bytes(lambda: decode_control(claims)) < 12 * 2**20


def test_a_longer_claim_is_refused_before_it_is_believed() -> None:
    """One element more than any message has, and nothing is allocated for it."""
    claims = tower(limits.CONTROL_LIST_MAX + 1, 1_000, limits.CONTROL_FRAME_MAX_BYTES)
    assert peak_bytes(lambda: decode_control(claims)) < 2**20


def test_memory_is_a_small_multiple_of_the_frame() -> None:
    """The costliest byte there is, an empty object, is bounded at 100 bytes."""
    lists = (b"\xdc\x10\x00" + b"\x80" * 4_096) * 32
    frame = HEADER + b"\xdc\x00\x20" + lists
    assert peak_bytes(lambda: decode_relay(frame)) < 100 * len(frame)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k"])
def test_depth_beyond_the_parser_is_refused(opening: bytes) -> None:
    """Nesting that would need a deep stack is refused by msgpack's own limit."""
    assert refusal(decode, HEADER + opening * 5_000 + b"\xc0") == "malformed"
