"""The bounds agree with each other and with what the declarations use."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from protocol import codec, limits
from protocol.envelope import Envelope
from protocol.fields import Field, ListOf, Record, Union, record_fields
from protocol.load import LoadRecord, ModelLoad
from protocol.messages import (
    CONTROL_KINDS,
    MEMBER_STATES,
    RELAY_KINDS,
    DigestEntry,
    Endpoint,
    Heartbeat,
    Ping,
    Pull,
    Update,
)
from protocol.spec import limit_reasons

NAMES = [name for name in vars(limits) if name.isupper()]
REASONS = limit_reasons(inspect.getsource(limits))
U64 = 2**64 - 1
PORT = 65_535

WORST_ENVELOPE = Envelope("m" * limits.MESH_LABEL_MAX_CHARS, "ff" * 16, U64, U64)
WORST_ENDPOINT = Endpoint("f" * limits.ADDRESS_MAX_CHARS, PORT, PORT)
WORST_UPDATE = Update(
    node_id="ff" * limits.NODE_ID_BYTES,
    state=MEMBER_STATES[-1],
    incarnation=U64,
    boot_id=U64,
    name="🙂" * limits.NAME_MAX_CHARS,
    public_key="ff" * limits.PUBLIC_KEY_BYTES,
    endpoints=(WORST_ENDPOINT,) * limits.ENDPOINTS_MAX,
    accuser="ff" * limits.NODE_ID_BYTES,
)
WORST_UPDATES = (WORST_UPDATE,) * limits.UPDATES_MAX


def lists(cls: type[Any]) -> Iterator[int]:
    """The length limit of every list in a record, and in the records inside it."""
    for _, field in record_fields(cls):
        yield from lists_in(field)


def lists_in(field: Field) -> Iterator[int]:
    """The same for one field."""
    match field:
        case ListOf():
            yield field.most
            yield from lists_in(field.inner)
        case Record():
            yield from lists(field.cls)
        case Union():
            for cls in field.by_tag.values():
                yield from lists(cls)
        case _:
            pass


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_states_its_reason(name: str) -> None:
    """A bound without a reason cannot be questioned."""
    assert len(REASONS[name]) > 20


def test_no_control_message_has_a_longer_list_than_its_receiver_takes() -> None:
    """CONTROL_LIST_MAX, checked before anything is allocated, refuses no honest message."""
    longest = max(length for cls in CONTROL_KINDS.values() for length in lists(cls))
    assert longest == limits.CONTROL_LIST_MAX


def test_no_relay_message_has_a_longer_list_than_its_receiver_takes() -> None:
    """The same for the relay plane."""
    longest = max(length for cls in RELAY_KINDS.values() for length in lists(cls))
    assert longest <= limits.RELAY_LIST_MAX


def test_what_peers_say_of_themselves_never_fills_the_frame_of_another() -> None:
    """32 updates as large as anybody can make them leave half a control frame free."""
    frame = codec.encode(WORST_ENVELOPE, Ping(U64, "ff" * 16, WORST_UPDATES))
    assert len(frame) < limits.CONTROL_FRAME_MAX_BYTES / 2


def test_a_digest_of_a_full_table_fits_a_frame() -> None:
    """Repair works in the largest mesh there may be."""
    entry = DigestEntry("ff" * 16, MEMBER_STATES[-1], U64)
    frame = codec.encode(WORST_ENVELOPE, Pull((entry,) * limits.DIGEST_ENTRIES_MAX))
    assert len(frame) < limits.CONTROL_FRAME_MAX_BYTES


def test_a_heartbeat_of_a_full_catalogue_fits_a_frame() -> None:
    """64 models with names of 120 characters, and the worst of gossip beside them."""
    model = ModelLoad("m" * 120, True, 64, 64, 64, 1.5, 1.5, 1.5, 1.5)
    load = LoadRecord(U64, 1, 1, U64, U64, "normal", True, (model,) * limits.MODELS_MAX)
    frame = codec.encode(WORST_ENVELOPE, Heartbeat(U64, U64, load, WORST_UPDATES))
    assert len(frame) < limits.CONTROL_FRAME_MAX_BYTES


def test_the_largest_job_has_a_bounded_number_of_pieces() -> None:
    """64 chunks carry the largest body, and each leaves room for the rest of its frame."""
    assert limits.JOB_MAX_BYTES / limits.RELAY_CHUNK_BYTES == 64
    assert limits.RELAY_CHUNK_BYTES < limits.RELAY_FRAME_MAX_BYTES / 2
