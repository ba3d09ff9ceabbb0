"""The gap between attempts: saturating, spread, between floor and cap, and kept on disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stapleguard.backoff import Attempts, Pace, gap

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PACES = st.builds(Pace, st.floats(0.001, 1e6), st.floats(0.001, 1e6))
DRAWS = st.floats(0, 1)


@given(st.integers(-5, 10**9), PACES, DRAWS)
def test_never_below_the_floor_and_never_above_the_cap(failures: int, pace: Pace, draw: float) -> None:
    assert pace.floor <= gap(failures, pace, draw) <= max(pace.floor, pace.cap)


@given(st.integers(1, 60), PACES)
def test_it_grows_with_each_failure_and_with_the_draw(failures: int, pace: Pace) -> None:
    assert gap(failures, pace, 0.5) <= gap(failures + 1, pace, 0.5)
    assert gap(failures, pace, 0.0) <= gap(failures, pace, 1.0)


@settings(max_examples=8, deadline=None)
@given(st.builds(Pace, st.floats(0.001, 1e5), st.floats(0.001, 1e5)), st.lists(DRAWS, min_size=1, max_size=5))
def test_ten_thousand_failures_in_a_row(pace: Pace, draws: list[float]) -> None:
    attempts, now, waits = Attempts(), NOW, []
    for number in range(10_000):
        attempts = attempts.failed(now, pace, draws[number % len(draws)])
        assert attempts.next_at is not None
        waits.append((attempts.next_at - now).total_seconds())
        now = attempts.next_at
    assert attempts.failures == 10_000
    assert pace.floor - 1e-5 <= min(waits)
    assert max(waits) <= max(pace.floor, pace.cap) + 1e-5


def test_those_who_fail_alike_come_back_apart() -> None:
    pace = Pace(60, 3600)
    assert gap(7, pace, 0.0) == 1800
    assert gap(7, pace, 1.0) == 3600
    assert [gap(n, pace, 1.0) for n in (1, 2, 3, 6, 7, 8, 10_000)] == [60, 120, 240, 1920, 3600, 3600, 3600]


def test_due_and_a_wrong_clock() -> None:
    waits = Attempts(1, NOW + timedelta(seconds=30))
    assert not waits.due(NOW, 3600)
    assert waits.due(NOW + timedelta(seconds=30), 3600)
    assert Attempts(1, NOW + timedelta(days=400)).due(NOW, 3600)  # written before the clock was set back
    assert Attempts().due(NOW, 3600)


@given(st.integers(0, 100), st.lists(st.text("abc.:", min_size=1), max_size=3))
def test_what_is_written_is_read(failures: int, hosts: list[str]) -> None:
    attempts = Attempts(failures, NOW, tuple(hosts))
    assert Attempts.from_json(json.loads(json.dumps(attempts.to_json()))) == attempts


@pytest.mark.parametrize(
    "data", [None, [], {"failures": "x"}, {"next_at": "soon"}, {"next_at": "2026-01-01T00:00:00"}]
)
def test_what_cannot_be_read_is_due(data: object) -> None:
    assert Attempts.from_json(data).due(NOW, 3600)
