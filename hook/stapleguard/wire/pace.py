"""How many handshakes run at once: as many as fill the waiting for peers with work, and hardly more.

A full handshake takes two round trips (three before TLS 1.3) and a little of our processor. Run at once
too few, and this process waits; too many, and every handshake waits for this process, and looks slow. So
each is held against its own round trips: while they take little more than those, more may run; when they
are stretched, fewer do. A peer that does not answer gives its place to another after a while, and only
its socket counts.
"""

from __future__ import annotations

import math
import resource
import socket
import struct
from collections import deque
from typing import Final

LEAST: Final = 64
"""Handshakes that may run at once before anything was measured, and however slow all of them are."""
_STRETCHED: Final = 1.25
_FEWER: Final = 0.92
_MORE: Final = 1.15
_MORE_AT_FIRST: Final = 1.5
"""Until they were stretched for the first time: short sweeps are over before small steps lead anywhere."""
_WEIGHT: Final = 1 / 16
_ROUND: Final = 16
_STALE_SECONDS: Final = 0.25
_STALE_ROUND_TRIPS: Final = 8
_OPEN_FOR_EACH: Final = 4
_OTHER_FILES: Final = 128
# struct tcp_info of linux/tcp.h: eight octets of flags, then words of 32 bits; tcpi_rtt is the sixteenth.
_RTT: Final = struct.Struct("=68xI")
_MICROSECOND: Final = 1e-6


class Pace:
    """Holds handshakes against the kernel's own figure of their round trips, which is free of our queue."""

    def __init__(self, most: int) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = math.inf if soft == resource.RLIM_INFINITY else max(soft - _OTHER_FILES, 1)
        self.most_open = int(min(files, _OPEN_FOR_EACH * most))
        self.most = min(most, self.most_open)
        self.window = float(min(LEAST, self.most))
        self.round_trip = 0.0
        self.stretch = 1.0
        self.count = 0
        self.step = _MORE_AT_FIRST
        self.round_trips: dict[int, float] = {}
        self.fresh: deque[tuple[float, int]] = deque()
        self.running: set[int] = set()
        self.stale: set[int] = set()

    def room(self, active: int, at: float) -> int:
        """Tell how many more may begin at `at` (monotonic seconds) beside those that are `active`."""
        while self.fresh and (self.fresh[0][1] not in self.running or at >= self.turns):
            _, index = self.fresh.popleft()
            if index in self.running:
                self.stale.add(index)
        return max(0, min(int(self.window) - (active - len(self.stale)), self.most_open - active))

    @property
    def turns(self) -> float:
        """When the oldest of those that still may answer is given up waiting for (monotonic seconds)."""
        patience = max(_STALE_SECONDS, _STALE_ROUND_TRIPS * self.round_trip)
        return self.fresh[0][0] + patience if self.fresh else math.inf

    def began(self, index: int, at: float) -> None:
        """Take up one that has begun."""
        self.running.add(index)
        self.fresh.append((at, index))

    def connected(self, index: int, opened: socket.socket) -> None:
        """Ask the kernel for the round trip of a connection that was just made."""
        try:
            (microseconds,) = _RTT.unpack(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
        except (OSError, struct.error):
            return
        seconds = microseconds * _MICROSECOND
        self.round_trips[index] = seconds
        self.round_trip += (seconds - self.round_trip) * (_WEIGHT if self.round_trip else 1.0)

    def completed(self, index: int, seconds: float, round_trips: int) -> None:
        """Take into account what a whole handshake of so many round trips took, connecting included."""
        least = self.round_trips.get(index, 0.0) * round_trips
        if least <= 0:
            return
        self.stretch += (seconds / least - self.stretch) * _WEIGHT
        self.count += 1
        if self.count % _ROUND == 0:
            stretched = self.stretch > _STRETCHED
            self.step = _MORE if stretched else self.step
            wanted = self.window * (_FEWER if stretched else self.step)
            self.window = max(float(min(LEAST, self.most)), min(wanted, float(self.most)))

    def ended(self, index: int) -> None:
        """Let go of one that has ended in whatever way."""
        self.running.discard(index)
        self.stale.discard(index)
        self.round_trips.pop(index, None)
