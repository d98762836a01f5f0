"""What a soak reads of a server, and which answers it takes for a refusal."""

from __future__ import annotations

import socket
import threading

import pytest

from benchmarks.measure import MeasureError
from benchmarks.servers import Server
from benchmarks.soak import Growth, ask_wrongly, each_of


def test_growth_is_a_slope_over_requests_and_the_first_round_is_not_counted() -> None:
    """A server that keeps 100 bytes of each request, and one bad reading among them."""
    growth = Growth(Server("node", 1, 1, 0.0), files=[9, 9], threads=[5, 7])
    growth.requests = [1_000 * number for number in range(1, 10)]
    growth.rss_mb = [50.0, *(60.0 + 0.1 * number for number in range(8))]
    growth.rss_mb[4] += 5.0
    found = growth.summary()
    assert found["bytes_per_request"] == pytest.approx(100.0)
    assert (found["open_files"], found["threads"]) == ([9, 9], [5, 7])


def test_one_round_has_no_slope() -> None:
    """Rather than a figure that means nothing."""
    growth = Growth(Server("node", 1, 1, 0.0), [50.0], [9], [5], [1_000])
    assert growth.summary()["bytes_per_request"] is None


@pytest.mark.parametrize("status", [200, 404])
def test_a_wrong_request_that_is_answered_ends_the_soak(status: int) -> None:
    """A server that takes anything has not done the work that the others did."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 %d Said\r\ncontent-length: 0\r\n\r\n" % status)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            if status == 200:
                with pytest.raises(MeasureError, match="answered with 200"):
                    each_of(1, listening.getsockname()[1], ask_wrongly)
            else:
                each_of(1, listening.getsockname()[1], ask_wrongly)
        finally:
            serving.join()
