"""How many handshakes run at once: as many as fill the waiting for peers with work, and hardly more.

A handshake takes two round trips and some of our processor. Two round trips divided by that is the number
that keeps this process busy; beyond it every handshake only waits for us, and looks slow. A peer that does
not answer costs no processor: after a while it gives its place to another, and only its socket counts.
"""

from __future__ import annotations

import math
import resource
import socket
import struct
from collections import deque
from time import process_time
from typing import Final

LEAST: Final = 32
"""Handshakes that may run at once before anything was measured."""
_ROUND_TRIPS: Final = 2
_FILL: Final = 1.1
_WEIGHT: Final = 1 / 16
_MEASURED: Final = 16
_SAMPLED: Final = 8
_STALE_SECONDS: Final = 0.25
_STALE_ROUND_TRIPS: Final = 8
_OPEN_FOR_EACH: Final = 4
_OTHER_FILES: Final = 128
# struct tcp_info of linux/tcp.h: eight octets of flags, then words of 32 bits; tcpi_rtt is the sixteenth.
_RTT: Final = struct.Struct("=68xI")
_MICROSECOND: Final = 1e-6


class Pace:
    """Measures round trips (the kernel's own figure, free of our queue) and processor time as they come."""

    def __init__(self, most: int) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = math.inf if soft == resource.RLIM_INFINITY else max(soft - _OTHER_FILES, 1)
        self.most_open = int(min(files, _OPEN_FOR_EACH * most))
        self.most = min(most, self.most_open)
        self.window = min(LEAST, self.most)
        self.round_trip = 0.0
        self.count = 0
        self.connections = 0
        self.origin = process_time()
        self.fresh: deque[tuple[float, int]] = deque()
        self.running: set[int] = set()
        self.stale: set[int] = set()

    def room(self, active: int, at: float) -> int:
        """Tell how many more may begin at `at` (monotonic seconds) beside those that are `active`."""
        while self.fresh and (self.fresh[0][1] not in self.running or at >= self.turns):
            _, index = self.fresh.popleft()
            if index in self.running:
                self.stale.add(index)
        return max(0, min(self.window - (active - len(self.stale)), self.most_open - active))

    @property
    def turns(self) -> float:
        """When the oldest of those that still may answer is given up waiting for (monotonic seconds)."""
        patience = max(_STALE_SECONDS, _STALE_ROUND_TRIPS * self.round_trip)
        return self.fresh[0][0] + patience if self.fresh else math.inf

    def began(self, index: int, at: float) -> None:
        """Take up one that has begun."""
        self.running.add(index)
        self.fresh.append((at, index))

    def ended(self, index: int) -> None:
        """Let go of one that has ended in whatever way."""
        self.running.discard(index)
        self.stale.discard(index)

    def connected(self, opened: socket.socket) -> None:
        """Take the round trip of a new connection into account; of many, a part is enough."""
        self.connections += 1
        if self.connections > LEAST and self.connections % _SAMPLED:
            return
        try:
            (microseconds,) = _RTT.unpack(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
        except (OSError, struct.error):
            return
        seconds = microseconds * _MICROSECOND
        self.round_trip += (seconds - self.round_trip) * (_WEIGHT if self.round_trip else 1.0)

    def completed(self) -> None:
        """Take the processor time of a completed handshake into account."""
        self.count += 1
        if self.count % _MEASURED:
            return
        each = max((process_time() - self.origin) / self.count, 1e-5)
        wanted = math.ceil(_FILL * _ROUND_TRIPS * self.round_trip / each)
        self.window = max(min(LEAST, self.most), min(wanted, self.most))
