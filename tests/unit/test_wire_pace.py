"""How many handshakes run at once, from what is measured."""

from __future__ import annotations

import socket

import pytest
from stapleguard.wire.pace import LEAST, Pace

pytestmark = pytest.mark.unit


def looked(pace: Pace, seconds: float, round_trip: float, count: int, round_trips: int = 2) -> None:
    """As if so many handshakes had taken `seconds` each, with that round trip."""
    for index in range(count):
        pace.round_trips[index] = round_trip
        pace.completed(index, seconds, round_trips)
        pace.ended(index)


def test_the_window_grows_while_handshakes_take_no_longer_than_their_round_trips() -> None:
    pace = Pace(256)
    looked(pace, 0.155, 0.075, 2000)
    assert pace.window == 256


def test_the_first_steps_are_large_and_those_after_a_stretch_are_not() -> None:
    pace = Pace(256)
    looked(pace, 0.155, 0.075, 64)
    assert pace.window == 256
    looked(pace, 0.3, 0.075, 2000)
    looked(pace, 0.155, 0.075, 64)
    assert LEAST <= pace.window < 128


def test_the_window_shrinks_to_the_least_when_they_are_stretched() -> None:
    pace = Pace(256)
    looked(pace, 0.155, 0.075, 2000)
    looked(pace, 0.2, 0.075, 2000)
    assert pace.window == LEAST


def test_a_third_round_trip_is_no_stretch() -> None:
    two, three = Pace(256), Pace(256)
    looked(two, 0.23, 0.075, 2000, round_trips=2)
    looked(three, 0.23, 0.075, 2000, round_trips=3)
    assert (two.window, three.window) == (LEAST, 256)


def test_on_loopback_the_window_stays_small() -> None:
    pace = Pace(256)
    looked(pace, 0.001, 0.00005, 2000)
    assert pace.window == LEAST


def test_the_window_keeps_its_limit() -> None:
    pace = Pace(64)
    looked(pace, 0.155, 0.075, 2000)
    assert pace.window == 64


def test_the_round_trip_is_the_kernels() -> None:
    pace = Pace(256)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        pace.connected(7, one)
    assert 0 < pace.round_trip < 0.1
    assert pace.round_trips[7] == pace.round_trip
    pace.ended(7)
    assert pace.round_trips == {}


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
