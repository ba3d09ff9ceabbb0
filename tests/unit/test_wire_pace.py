"""How many handshakes run at once, from what is measured."""

from __future__ import annotations

import socket

import pytest
from stapleguard.wire.pace import LEAST, Pace

pytestmark = pytest.mark.unit


def busy(seconds: float, pace: Pace, completed: int) -> None:
    """As if `completed` handshakes had cost so much of our processor each."""
    pace.origin -= seconds * completed
    for _ in range(completed):
        pace.completed()


@pytest.mark.parametrize(
    ("round_trip", "least", "most"), [(0.075, 200, 256), (0.02, 55, 75), (0.0001, 32, 32)]
)
def test_the_window_follows_round_trips_and_processor_time(round_trip: float, least: int, most: int) -> None:
    pace = Pace(256)
    pace.round_trip = round_trip
    busy(0.0007, pace, 160)
    assert least <= pace.window <= most


def test_the_window_keeps_its_limit() -> None:
    pace = Pace(64)
    pace.round_trip = 1.0
    busy(0.0007, pace, 160)
    assert pace.window == 64


def test_the_round_trip_is_the_kernels() -> None:
    pace = Pace(256)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        pace.connected(one)
    assert 0 < pace.round_trip < 0.1


def test_who_does_not_answer_gives_up_its_place_but_not_its_socket() -> None:
    pace = Pace(LEAST)
    for index in range(LEAST):
        pace.began(index, 0.0)
    assert pace.room(LEAST, 0.1) == 0
    assert pace.room(LEAST, 1.0) == LEAST
    pace.ended(0)
    assert pace.room(LEAST - 1, 1.0) == LEAST
    for index in range(LEAST, pace.most_open + 1):
        pace.began(index, 1.0)
    assert pace.room(pace.most_open, 9.0) == 0


def test_one_that_ended_in_time_was_never_stale() -> None:
    pace = Pace(LEAST)
    pace.began(0, 0.0)
    pace.ended(0)
    assert (pace.room(0, 9.0), len(pace.fresh), len(pace.stale)) == (LEAST, 0, 0)
