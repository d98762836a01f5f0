"""The relay as a whole: two real relays on loopback, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from math import inf

import pytest

from meshd.core.ports import Batch, EventStream
from meshd.net.transport import BindError
from protocol import limits
from protocol.jobs import Failure, Job, ReasoningDelta, TextDelta
from protocol.load import ModelLoad

from .conftest import (
    DONE,
    World,
    events_of,
    failure_of,
    job,
    member_of,
    new_identity,
    stream_of,
    text_of,
    until,
)


async def test_an_answer_crosses_whole_and_in_order(world: World) -> None:
    """The asker reads exactly the events that the other side's engine made."""
    made = [(ReasoningDelta("hm"),), (TextDelta("a", (1,)), TextDelta("b", (2,))), (DONE,)]
    them = new_identity()
    async with (
        world.relay(lambda *_: stream_of(*made), identity=them) as server,
        world.relay() as asker,
    ):
        events = await events_of(asker.generate(member_of(them, server.port), job()))
    assert events == [event for batch in made for event in batch]


async def test_the_answering_side_learns_who_asks_and_that_the_job_hopped(world: World) -> None:
    """The sender is the one its key proves, and the job arrives with one hop counted."""
    seen: list[tuple[str, Job]] = []

    def answer(sender: str, arrived: Job) -> EventStream:
        seen.append((sender, arrived))
        return stream_of((DONE,))

    us, them = new_identity(), new_identity()
    async with (
        world.relay(answer, identity=them) as server,
        world.relay(identity=us) as asker,
    ):
        await events_of(asker.generate(member_of(them, server.port), job("r-9")))
    ((sender, arrived),) = seen
    assert sender == us.node_id
    assert (arrived.request_id, arrived.hops) == ("r-9", 1)


async def test_a_body_of_five_megabytes_crosses_in_pieces(world: World) -> None:
    """A long prompt arrives unchanged, and nothing stays promised to it."""
    prompt = "0123456789abcdef" * (5 * 1024 * 1024 // 16)
    seen: list[Job] = []

    def answer(_sender: str, arrived: Job) -> EventStream:
        seen.append(arrived)
        return stream_of((DONE,))

    them = new_identity()
    async with world.relay(answer, identity=them) as server, world.relay() as asker:
        await events_of(asker.generate(member_of(them, server.port), job(text=prompt)))
        assert seen[0].messages[0]["content"] == prompt
        assert server.stats.receiving_bytes == 0
        assert asker.counters()["relay_frames_out"] >= 20


async def test_the_largest_job_does_not_hold_up_a_small_one(world: World) -> None:
    """A small request that is opened after a 15 MiB one is answered before it."""
    order: list[str] = []

    def answer(_sender: str, arrived: Job) -> EventStream:
        order.append(arrived.request_id)
        return stream_of((DONE,))

    them = new_identity()
    async with world.relay(answer, identity=them) as server, world.relay() as asker:
        member = member_of(them, server.port)
        await asker.ping(member, 5)
        large = asker.generate(member, job("large", "x" * (15 * 1024 * 1024)))
        small = asker.generate(member, job("small"))
        await asyncio.gather(events_of(large), events_of(small))
    assert order == ["small", "large"]


async def test_a_slow_reader_pauses_the_engine(world: World) -> None:
    """The engine is asked for one window more than was taken, and goes on when more is taken."""
    pulled = 0

    async def endless() -> AsyncGenerator[Batch, None]:
        nonlocal pulled
        while True:
            pulled += 1
            yield (TextDelta("x" * 1_000),)

    them = new_identity()
    async with (
        world.relay(lambda *_: endless(), identity=them) as server,
        world.relay() as asker,
    ):
        stream = asker.generate(member_of(them, server.port), job())
        taken = len(await anext(stream))
        await until(lambda: pulled > limits.RELAY_CREDIT_FRAMES)
        await asyncio.sleep(0.1)
        paused_at = pulled
        assert paused_at <= taken + limits.RELAY_CREDIT_FRAMES + 1
        taken += len(await anext(stream))
        taken += len(await anext(stream))
        await until(lambda: pulled > paused_at)
        await stream.aclose()


async def test_a_reader_that_keeps_up_gets_a_long_answer(world: World) -> None:
    """Credit returns as it is read: ten windows of frames pass without loss."""
    count = 10 * limits.RELAY_CREDIT_FRAMES
    batches = [(TextDelta(f"{index},"),) for index in range(count)]
    them = new_identity()
    async with (
        world.relay(lambda *_: stream_of(*batches, (DONE,)), identity=them) as server,
        world.relay() as asker,
    ):
        events = await events_of(asker.generate(member_of(them, server.port), job()))
    assert text_of(events) == "".join(f"{index}," for index in range(count))
    assert events[-1] == DONE


async def test_a_batch_beyond_the_frame_limit_is_cut_and_arrives(world: World) -> None:
    """Neither many events nor one text of 3 MB is too much for one batch."""
    batch = (*(TextDelta("y") for _ in range(1_300)), TextDelta("z" * 3_000_000), DONE)
    them = new_identity()
    async with (
        world.relay(lambda *_: stream_of(batch), identity=them) as server,
        world.relay() as asker,
    ):
        events = await events_of(asker.generate(member_of(them, server.port), job()))
    assert text_of(events) == "y" * 1_300 + "z" * 3_000_000


@pytest.mark.parametrize("spare", [0, 60, 120, 400])
async def test_a_frame_just_below_the_limit_arrives(world: World, spare: int) -> None:
    """The encryption's own bytes do not make the largest frames too large for the socket."""
    batch = (TextDelta("z" * (limits.RELAY_FRAME_MAX_BYTES - spare)), DONE)
    them = new_identity()
    async with (
        world.relay(lambda *_: stream_of(batch), identity=them) as server,
        world.relay() as asker,
    ):
        events = await events_of(asker.generate(member_of(them, server.port), job()))
    assert len(text_of(events)) == limits.RELAY_FRAME_MAX_BYTES - spare


async def test_a_reader_that_leaves_frees_the_slot(world: World) -> None:
    """Closing the answer early ends the engine's stream on the other node, within 200 ms."""
    freed = asyncio.Event()

    async def waiting() -> AsyncGenerator[Batch, None]:
        try:
            yield (TextDelta("a"),)
            await asyncio.Event().wait()
        finally:
            freed.set()

    them = new_identity()
    async with (
        world.relay(lambda *_: waiting(), identity=them) as server,
        world.relay() as asker,
    ):
        stream = asker.generate(member_of(them, server.port), job())
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(0.2):
            await freed.wait()
        await until(lambda: server.stats.answering == 0)
        assert asker.stats.asked == 0
        assert server.counters()["relay_cancelled"] == 1


async def test_a_cancelled_reader_frees_the_slot(world: World) -> None:
    """Cancelling the task that waits for the first event ends the work on the other node."""
    begun, freed = asyncio.Event(), asyncio.Event()

    async def waiting() -> AsyncGenerator[Batch, None]:
        begun.set()
        try:
            await asyncio.Event().wait()
            yield (DONE,)
        finally:
            freed.set()

    them = new_identity()
    async with (
        world.relay(lambda *_: waiting(), identity=them) as server,
        world.relay() as asker,
    ):
        task = asyncio.create_task(events_of(asker.generate(member_of(them, server.port), job())))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(0.2):
            await freed.wait()


async def test_many_requests_share_a_connection(world: World) -> None:
    """A hundred answers at once arrive unmixed over one connection."""

    async def echo(arrived: Job) -> AsyncGenerator[Batch, None]:
        for _ in range(5):
            yield (TextDelta(arrived.request_id),)
            await asyncio.sleep(0)
        yield (DONE,)

    them = new_identity()
    async with (
        world.relay(lambda _sender, arrived: echo(arrived), identity=them) as server,
        world.relay() as asker,
    ):
        member = member_of(them, server.port)
        names = [f"r-{index}" for index in range(100)]
        answers = await asyncio.gather(
            *(events_of(asker.generate(member, job(name))) for name in names)
        )
        assert server.stats.sessions == 1
    assert [text_of(events) for events in answers] == [name * 5 for name in names]


async def test_a_forwarded_job_is_not_forwarded_again(world: World) -> None:
    """A job that has hopped once is refused before anything is sent."""
    them = new_identity()
    async with world.relay(identity=them) as server, world.relay() as asker:
        events = await events_of(asker.generate(member_of(them, server.port), job(hops=1)))
        assert server.counters()["relay_frames_in"] == 0
    assert failure_of(events).code == "bad_request"


async def test_a_request_id_is_open_only_once(world: World) -> None:
    """A second request of the same id to the same peer is refused; the first goes on."""
    them = new_identity()

    async def waiting() -> AsyncGenerator[Batch, None]:
        yield (TextDelta("a"),)
        await asyncio.Event().wait()

    async with (
        world.relay(lambda *_: waiting(), identity=them) as server,
        world.relay() as asker,
    ):
        member = member_of(them, server.port)
        first = asker.generate(member, job())
        await anext(first)
        second = await events_of(asker.generate(member, job()))
        assert asker.stats.asked == 1
        await first.aclose()
    assert failure_of(second).code == "bad_request"


async def test_a_job_that_cannot_be_encoded_is_refused(world: World) -> None:
    """A job out of the wire's bounds ends in a bad_request, not in an exception."""
    them = new_identity()
    async with world.relay(identity=them) as server, world.relay() as asker:
        member = member_of(them, server.port)
        events = await events_of(asker.generate(member, job(text="\ud800")))
    assert failure_of(events).code == "bad_request"


@pytest.mark.parametrize("case", ["raises", "ends without a word", "speaks nonsense"])
async def test_an_engine_that_breaks_its_contract_costs_its_own_request(
    world: World, case: str
) -> None:
    """The asker gets an engine_failed that may be tried elsewhere, and the relay goes on."""

    async def raises() -> AsyncGenerator[Batch, None]:
        yield (TextDelta("a"),)
        raise ZeroDivisionError("the prompt was: secret")

    streams = {
        "raises": raises,
        "ends without a word": lambda: stream_of((TextDelta("a"),)),
        "speaks nonsense": lambda: stream_of((TextDelta("a"),), (TextDelta("\ud800"),)),
    }
    them = new_identity()
    async with (
        world.relay(lambda *_: streams[case](), identity=them) as server,
        world.relay() as asker,
    ):
        member = member_of(them, server.port)
        events = await events_of(asker.generate(member, job()))
        assert await asker.ping(member, 5) < 5
    assert text_of(events) == "a"
    failure = failure_of(events)
    assert (failure.code, failure.elsewhere) == ("engine_failed", True)
    assert "secret" not in failure.message


async def test_a_failure_of_the_other_side_arrives_as_it_was_said(world: World) -> None:
    """What the answering node says of its failure is what the asker reads."""
    said = Failure("insufficient_memory", "4 GB wanted, 2 GB free", elsewhere=True)
    them = new_identity()
    async with (
        world.relay(lambda *_: stream_of((said,)), identity=them) as server,
        world.relay() as asker,
    ):
        events = await events_of(asker.generate(member_of(them, server.port), job()))
    assert events == [said]


async def test_a_ping_measures_the_round_trip(world: World) -> None:
    """A ping makes the connection when there is none, and answers in seconds."""
    them = new_identity()
    async with world.relay(identity=them) as server, world.relay() as asker:
        assert 0 < await asker.ping(member_of(them, server.port), 5) < 5
        assert asker.stats.peers == 1


async def test_a_probe_needs_a_connection_and_tells_the_load_of_that_moment(world: World) -> None:
    """Without a connection it gives up at once: making one costs more than the answer is worth."""
    them = new_identity()
    idle = ModelLoad("m", True, 2, 0, 0, 0.0, 100.0, 10.0, 0.0)
    loads = {"m": idle}
    async with world.relay(identity=them, loads=loads) as server, world.relay() as asker:
        member = member_of(them, server.port)
        with pytest.raises(TimeoutError):
            await asker.probe(member, "m", 5)
        await asker.ping(member, 5)
        assert await asker.probe(member, "m", 5) == idle
        busy = loads["m"] = replace(idle, in_flight=2, queued=5, backlog_s=9.0)
        assert await asker.probe(member, "m", 5) == busy
        assert await asker.probe(member, "other", 5) is None


async def test_a_nudge_is_answered_by_a_sign_of_life(world: World) -> None:
    """Without a connection a member is silent for ever, and a nudge makes none."""
    them = new_identity()
    async with world.relay(identity=them) as server, world.relay() as asker:
        member = member_of(them, server.port)
        asker.nudge(member)
        assert asker.silent_s(member) == inf
        await asker.ping(member, 5)
        await asyncio.sleep(0.1)
        assert asker.silent_s(member) >= 0.05
        asker.nudge(member)
        await until(lambda: asker.silent_s(member) < 0.05)


async def test_a_closing_relay_ends_what_it_asked_and_what_it_answers(world: World) -> None:
    """Nobody waits for a relay that has closed, on either side."""
    freed = asyncio.Event()

    async def waiting() -> AsyncGenerator[Batch, None]:
        try:
            yield (TextDelta("a"),)
            await asyncio.Event().wait()
        finally:
            freed.set()

    them = new_identity()
    async with world.relay() as asker:
        async with world.relay(lambda *_: waiting(), identity=them) as server:
            stream = asker.generate(member_of(them, server.port), job())
            await anext(stream)
        assert freed.is_set()
        assert failure_of(await events_of(stream)).code == "unreachable"
        own = asker.generate(member_of(them, server.port), job("later"))
    assert failure_of(await events_of(own)).code == "unreachable"


async def test_a_port_that_is_taken_is_one_line(world: World) -> None:
    """The error names the port and says what to do."""
    async with world.relay() as first:
        with pytest.raises(BindError, match=rf"{first.port}.*--mesh") as refused:
            async with world.relay(port=first.port):
                pass
    assert "\n" not in str(refused.value)
