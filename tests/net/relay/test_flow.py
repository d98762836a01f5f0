"""The rules of one forwarded request, without a socket or a loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.net.relay.flow import (
    ASSEMBLIES_MAX,
    ASSEMBLY_MAX_BYTES,
    ASSEMBLY_TIMEOUT_S,
    OUTBOX_MAX_BYTES,
    OUTBOX_MAX_NOTES,
    Assemblies,
    FlowError,
    Inspection,
    Intake,
    Outbox,
    Parts,
    Refused,
    Rejected,
    Seal,
    body_messages,
)
from protocol import limits
from protocol.errors import ProtocolError
from protocol.jobs import (
    Event,
    Failure,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Vector,
)
from protocol.messages import JobChunk, JobEvents, JobOpen, RelayPing

SENDER = "ab" * 16
DONE = Finish("stop", 1, 1)


def collect(assemblies: Assemblies[str], packed: bytes) -> bytes | None:
    """What comes out of the messages that carry `packed`."""
    opened, *chunks = body_messages("r", packed, 1)
    assert isinstance(opened, JobOpen)
    whole = assemblies.open("r", opened, 0.0)
    for chunk in chunks:
        assert isinstance(chunk, JobChunk)
        made = assemblies.add("r", chunk)
        whole = made[1] if made is not None else None
    return whole


# Envelopes


def test_frames_of_one_connection_are_numbered_and_accepted_in_order() -> None:
    """What a seal makes an inspection opens, each frame once."""
    seal, inspection = Seal("mesh", SENDER, 5), Inspection("mesh", SENDER)
    frames = [seal.frame(RelayPing(nonce)) for nonce in range(3)]
    assert [inspection.message(frame) for frame in frames] == [RelayPing(n) for n in range(3)]
    with pytest.raises(Rejected, match="replayed"):
        inspection.message(frames[1])


def test_a_frame_that_cannot_be_made_uses_no_number() -> None:
    """The numbers on the wire have no hole where an encoding failed."""
    seal = Seal("mesh", SENDER, 5)
    with pytest.raises(ProtocolError):
        seal.frame(JobEvents("r", 0, (TextDelta("\ud800"),)))
    assert seal.sequence == 0


@pytest.mark.parametrize(
    ("seal", "reason"),
    [
        (Seal("other", SENDER, 5), "foreign_mesh"),
        (Seal("mesh", "cd" * 16, 5), "sender_mismatch"),
        (Seal("mesh", SENDER, 6), "replayed"),
    ],
)
def test_a_connection_carries_one_boot_of_one_node(seal: Seal, reason: str) -> None:
    """Another mesh, sender or boot is rejected under its own name."""
    inspection = Inspection("mesh", SENDER)
    inspection.message(Seal("mesh", SENDER, 5).frame(RelayPing(1)))
    seal.sequence = 9
    with pytest.raises(Rejected, match=reason):
        inspection.message(seal.frame(RelayPing(2)))


def test_another_connection_is_numbered_from_zero() -> None:
    """A seal for another connection shares the node, not the numbers."""
    seal = Seal("mesh", SENDER, 5)
    seal.frame(RelayPing(1))
    assert seal.again().sequence == 0


# Bodies


@given(st.integers(1, 4 * limits.RELAY_CHUNK_BYTES + 1))
def test_a_body_of_any_size_is_put_together_again(size: int) -> None:
    """What was cut for the wire comes out whole, and nothing stays reserved."""
    assemblies: Assemblies[str] = Assemblies()
    packed = bytes(size)
    assert collect(assemblies, packed) == packed
    assert assemblies.reserved_bytes == 0
    assert not assemblies.waiting


def test_the_number_of_bodies_being_collected_is_bounded() -> None:
    """One more than ASSEMBLIES_MAX is refused, and may go elsewhere."""
    assemblies: Assemblies[int] = Assemblies()
    for key in range(ASSEMBLIES_MAX):
        assemblies.open(key, JobOpen("r", 2, 1, b"x"), 0.0)
    with pytest.raises(Refused) as refused:
        assemblies.open(-1, JobOpen("r", 2, 1, b"x"), 0.0)
    assert refused.value.failure.elsewhere
    assert len(assemblies.waiting) == ASSEMBLIES_MAX


def test_the_bytes_promised_to_bodies_are_bounded_and_come_back() -> None:
    """What does not fit is refused; a dropped body makes room again."""
    assemblies: Assemblies[int] = Assemblies()
    for key in range(ASSEMBLY_MAX_BYTES // limits.JOB_MAX_BYTES):
        assemblies.open(key, JobOpen("r", limits.JOB_MAX_BYTES, 1, b"x"), 0.0)
    with pytest.raises(Refused):
        assemblies.open(-1, JobOpen("r", 2, 1, b"x"), 0.0)
    assert assemblies.drop(0)
    assert not assemblies.drop(0)
    assert assemblies.open(-1, JobOpen("r", 2, 1, b"x"), 0.0) is None


def test_a_body_has_a_deadline() -> None:
    """A body is overdue ASSEMBLY_TIMEOUT_S after it was opened, not before."""
    assemblies: Assemblies[str] = Assemblies()
    assemblies.open("r", JobOpen("r", 2, 1, b"x"), 100.0)
    assert assemblies.overdue(100.0 + ASSEMBLY_TIMEOUT_S - 0.1) == []
    assert assemblies.overdue(100.0 + ASSEMBLY_TIMEOUT_S) == ["r"]


@pytest.mark.parametrize("chunk", [JobChunk("r", 2, b"b"), JobChunk("r", 1, b""), b"bcd"])
def test_a_piece_that_does_not_follow_ends_the_request(chunk: JobChunk | bytes) -> None:
    """A gap, an empty piece or one too long is a FlowError, and the memory is free."""
    piece = chunk if isinstance(chunk, JobChunk) else JobChunk("r", 1, chunk)
    assemblies: Assemblies[str] = Assemblies()
    assemblies.open("r", JobOpen("r", 3, 1, b"a"), 0.0)
    with pytest.raises(FlowError):
        assemblies.add("r", piece)
    assert assemblies.reserved_bytes == 0


def test_a_piece_of_an_unknown_request_is_a_key_error() -> None:
    """The caller counts it as late."""
    with pytest.raises(KeyError):
        Assemblies[str]().add("r", JobChunk("r", 1, b"x"))


def test_an_empty_piece_is_called_one() -> None:
    """Its number is right, so that alone would explain nothing."""
    assemblies: Assemblies[str] = Assemblies()
    assemblies.open("r", JobOpen("r", 3, 1, b"a"), 0.0)
    with pytest.raises(FlowError, match="empty piece 1"):
        assemblies.add("r", JobChunk("r", 1, b""))


# Sending


def frames_of(outbox: Outbox) -> list[bytes]:
    """Everything an outbox hands out, in order."""
    return list(iter(outbox.next, None))


def test_bodies_take_turns_and_small_frames_go_first() -> None:
    """A frame of each body in turn; whatever is small does not wait for them."""
    outbox = Outbox()
    outbox.body("a", iter([b"a1", b"a2", b"a3"]), 3)
    outbox.body("b", iter([b"b1"]), 1)
    assert outbox.note(b"note")
    assert outbox
    assert frames_of(outbox) == [b"note", b"a1", b"b1", b"a2", b"a3"]
    assert not outbox
    assert outbox.waiting_bytes == 0


def test_frames_are_made_when_they_can_be_sent() -> None:
    """A waiting body costs its packed bytes, not its frames beside them."""
    made: list[int] = []

    def frames() -> Iterator[bytes]:
        for index in range(3):
            made.append(index)
            yield b"x"

    outbox = Outbox()
    outbox.body("a", frames(), 3)
    assert made == []
    outbox.next()
    assert made == [0]


def test_a_dropped_body_sends_no_more() -> None:
    """Its memory is free again; dropping what is not there does nothing."""
    outbox = Outbox()
    outbox.body("a", iter([b"a1", b"a2"]), 2)
    outbox.body("b", iter([b"b1"]), 1)
    outbox.drop("a")
    outbox.drop("a")
    assert outbox.waiting_bytes == 1
    assert frames_of(outbox) == [b"b1"]


def test_an_outbox_is_bounded() -> None:
    """Bodies in bytes, small frames in number."""
    outbox = Outbox()
    outbox.body("a", iter([b"x"]), OUTBOX_MAX_BYTES)
    with pytest.raises(Refused):
        outbox.body("b", iter([b"x"]), 1)
    assert all(outbox.note(b"x") for _ in range(OUTBOX_MAX_NOTES))
    assert not outbox.note(b"x")


# Events out


def parts_of(events: list[Event], most_units: int) -> list[tuple[Event, ...]]:
    """How a batch is cut when a frame holds `most_units` characters."""
    cut: list[tuple[Event, ...]] = []

    def frame(part: tuple[Event, ...]) -> bytes:
        size = sum(
            len(getattr(event, "text", getattr(event, "arguments", "xxx"))) for event in part
        )
        if size > most_units:
            raise ProtocolError("length", "too long")
        cut.append(part)
        return b""

    parts = Parts(events)
    while parts:
        parts.next(frame)
    return cut


def test_a_batch_that_fits_is_one_frame() -> None:
    """No cut where none is needed."""
    events: list[Event] = [TextDelta("a"), TextDelta("b"), DONE]
    assert parts_of(events, 100) == [tuple(events)]


def test_more_events_than_a_frame_may_hold_are_cut() -> None:
    """At EVENTS_MAX, in order."""
    events: list[Event] = [TextDelta("")] * (limits.EVENTS_MAX + 1)
    assert [len(part) for part in parts_of(events, 100)] == [limits.EVENTS_MAX, 1]


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=20), st.integers(1, 50))
def test_cutting_loses_and_reorders_nothing(texts: list[str], most: int) -> None:
    """The text is the same however small a frame is."""
    cut = parts_of([TextDelta(text) for text in texts], most)
    joined = "".join(event.text for part in cut for event in part if isinstance(event, TextDelta))
    assert joined == "".join(texts)


def test_a_long_event_of_each_kind_is_cut_where_it_may_be() -> None:
    """Text and arguments are cut; a tool call keeps its name in its first piece only."""
    assert parts_of([ReasoningDelta("abcd")], 2) == [
        (ReasoningDelta("ab"),),
        (ReasoningDelta("cd"),),
    ]
    assert parts_of([ToolCallDelta(1, "id", "name", "abcd")], 2) == [
        (ToolCallDelta(1, "id", "name", "ab"),),
        (ToolCallDelta(1, "", "", "cd"),),
    ]
    assert parts_of([TextDelta("abcd", (1, 2))], 2) == [
        (TextDelta("ab"),),
        (TextDelta("cd", (1, 2)),),
    ]


@pytest.mark.parametrize(
    "event", [Vector(0, b"1234"), TextDelta("a"), ToolCallDelta(0, "", "", "a")]
)
def test_what_cannot_be_cut_is_an_error(event: Event) -> None:
    """A single event that no frame can hold raises the encoder's own error."""
    with pytest.raises(ProtocolError, match="length"):
        parts_of([event], 0)


def test_an_error_that_cutting_cannot_cure_is_passed_on() -> None:
    """Only "length" is a reason to cut."""

    def frame(_part: tuple[Event, ...]) -> bytes:
        raise ProtocolError("type", "nonsense")

    with pytest.raises(ProtocolError, match="nonsense"):
        Parts([TextDelta("ab"), DONE]).next(frame)


# Events in


def test_events_are_taken_in_order_and_together() -> None:
    """Frames that came while the reader was busy are one batch to it."""
    intake = Intake(8)
    intake.accept(0, (TextDelta("a"),))
    intake.accept(1, (TextDelta("b"), DONE))
    assert intake.ended
    assert intake.take() == ([TextDelta("a"), TextDelta("b"), DONE], 0)
    assert not intake


def test_credit_returns_in_halves() -> None:
    """One Credit for half a window of frames, not one for each."""
    intake = Intake(8)
    grants = []
    for index in range(8):
        intake.accept(index, (TextDelta("a"),))
        grants.append(intake.take()[1])
    assert grants == [0, 0, 0, 4, 0, 0, 0, 4]
    assert intake.outstanding == 8


def test_a_gap_and_an_overdraft_are_errors() -> None:
    """Neither a missing frame nor one beyond the credit is accepted."""
    intake = Intake(1)
    with pytest.raises(FlowError, match="part 1"):
        intake.accept(1, (DONE,))
    intake.accept(0, (TextDelta("a"),))
    with pytest.raises(FlowError, match="faster"):
        intake.accept(1, (DONE,))


def test_an_answer_ends_once() -> None:
    """Neither a failure after the end nor one after another changes the end."""
    failure = Failure("unreachable", "gone", elsewhere=True)
    intake = Intake()
    intake.accept(0, (TextDelta("a"),))
    intake.fail(failure)
    intake.fail(Failure("timeout", "late", elsewhere=True))
    assert intake.take()[0] == [TextDelta("a"), failure]


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 40))
def test_the_window_is_never_exceeded(reads: list[bool], window: int) -> None:
    """Whatever the reader does, unread frames and credit together stay within the window."""
    intake = Intake(window)
    index = unread = 0
    for read in reads:
        if read:
            intake.take()
            unread = 0
        elif intake.outstanding:
            intake.accept(index, (TextDelta("a"),))
            index += 1
            unread += 1
        assert unread + intake.outstanding <= window
