"""The load generator against the stub: what is not a whole answer is never counted as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from benchmarks import stub
from benchmarks.load import Connection, LoadError, check, measure_rate, measure_ttft
from benchmarks.machine import assign, cores, difference, summary


class Paper(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A running stub."""
    async with await _listen(stub.StubProtocol) as server:
        yield server.sockets[0].getsockname()[1]


async def _listen(protocol: type[asyncio.Protocol]) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_the_stub_is_whole(port: int, *, stream: bool) -> None:
    """All its words are there, plain and streamed."""
    await check(port, stream=stream)


async def test_first_words_are_timed_for_each_target(port: int) -> None:
    """As many samples as rounds, each of them a time that passed."""
    took = await measure_ttft({"a": port, "b": port}, rounds=5)
    assert [len(samples) for samples in took.values()] == [5, 5]
    assert min(took["a"] + took["b"]) > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_rate_counts_answers(port: int, *, stream: bool) -> None:
    """A closed loop on several connections counts what came back."""
    rate = await measure_rate(port, stream=stream, concurrency=4, seconds=0.1, warmup=0.05)
    assert rate["answers"] > 0
    assert rate["per_s"] == pytest.approx(rate["answers"] / rate["seconds"])


async def test_an_error_is_not_a_result() -> None:
    """A server that answers quickly with an error ends the measurement."""

    class Refusing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(refusal)  # type: ignore[attr-defined]
            self.transport.close()

    async with await _listen(Refusing) as server:
        with pytest.raises(LoadError, match="503"):
            await check(server.sockets[0].getsockname()[1], stream=True)


@pytest.mark.parametrize("answer", [stub.PLAIN, stub.STREAM, stub.STREAM_WITH_USAGE])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_end_of_an_answer_is_found_however_it_is_cut(answer: bytes, step: int) -> None:
    """Done exactly once, with the last byte, whatever the segments are."""
    done: list[int] = []
    connection = Connection(lambda _: done.append(seen))
    connection.connection_made(Paper())
    connection.send(b"")
    seen = 0
    for start in range(0, len(answer), step):
        seen = min(start + step, len(answer))
        connection.data_received(answer[start : start + step])
    assert done == [len(answer)]
    assert connection.first_word_at > 0


def test_the_stub_reads_a_request_in_pieces() -> None:
    """Two requests, cut anywhere, get two answers."""
    transport = Paper()
    protocol = stub.StubProtocol()
    protocol.connection_made(transport)
    body = b'{"stream": true}'
    post = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for byte in post + b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n":
        protocol.data_received(bytes([byte]))
    assert transport.written == [stub.STREAM, stub.MODELS]


def test_quantiles_are_the_usual_ones() -> None:
    """Median and 99th percentile, and their differences."""
    assert summary([float(n) for n in range(1, 101)]) == {"p50": 50.5, "p99": 99.0}
    assert difference({"p50": 2.0, "p99": 5.0}, {"p50": 0.5, "p99": 1.0}) == {
        "p50": 1.5,
        "p99": 4.0,
    }


def test_every_role_has_a_core_that_exists() -> None:
    """Roles beyond the number of cores share the last one."""
    placed = assign(["a", "b", "c"])
    assert set(placed) == {"a", "b", "c"}
    assert set(placed.values()) <= {*cores(), None}
