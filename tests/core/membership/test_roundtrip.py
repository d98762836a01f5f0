"""Patience is learned from answers."""

from __future__ import annotations

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.roundtrip import ENOUGH, SAMPLES, RoundTrips, smooth


@pytest.mark.parametrize(
    ("rtt_s", "samples", "timeout_s"),
    [
        (0.001, ENOUGH - 1, 0.12),
        (0.001, ENOUGH, 0.05),
        (0.03, ENOUGH, 0.06),
        (0.1, ENOUGH, 0.2),
        (2.0, ENOUGH, 0.5),
    ],
)
def test_the_timeout_follows_the_round_trips_within_bounds(
    rtt_s: float, samples: int, timeout_s: float
) -> None:
    """The default until enough is known, then twice the 95th percentile, clamped."""
    trips = RoundTrips(MembershipConfig())
    for _ in range(samples):
        trips.add(rtt_s)
    assert trips.ack_timeout_s == pytest.approx(timeout_s)


@pytest.mark.parametrize(("outliers", "timeout_s"), [(4, 0.05), (5, 0.5)])
def test_a_few_outliers_do_not_stretch_everything(outliers: int, timeout_s: float) -> None:
    """Four very late answers are cables put back; five are a network that is slow."""
    trips = RoundTrips(MembershipConfig())
    for rtt_s in [0.4] * outliers + [0.001] * (SAMPLES - outliers):
        trips.add(rtt_s)
    assert trips.ack_timeout_s == timeout_s


def test_the_past_is_forgotten() -> None:
    """After a full window of good answers, bad ones no longer count."""
    trips = RoundTrips(MembershipConfig())
    for rtt_s in [0.4] * SAMPLES + [0.001] * SAMPLES:
        trips.add(rtt_s)
    assert trips.ack_timeout_s == 0.05


def test_a_peer_s_round_trip_is_smoothed() -> None:
    """The first sample is taken as it is, later ones weigh an eighth."""
    assert smooth(None, 0.08) == 0.08
    assert smooth(0.08, 0.16) == pytest.approx(0.09)
