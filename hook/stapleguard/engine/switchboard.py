"""Open connections to a server of this host, by the worker that has accepted each.

The kernel shares connections out among workers as it likes: nginx without `reuseport` gets sixteen in a
row for one worker, `reuseport` hashes. Connections without a word are cheap, though, and the kernel tells
who has accepted one. So as many are opened as it takes until every worker that is wanted has one, and only
those are used: one handshake for each worker, however many there are, and no doubt left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from stapleguard import host
from stapleguard.host import Clock
from stapleguard.model import Endpoint
from stapleguard.wire.line import Line, dial

_IN_A_ROW: Final = 16
"""nginx: accepts of one worker before another one is woken (ngx_reorder_accept_events)."""
_LEAST_BURST: Final = 16
_LARGEST_BURST: Final = 256
"""Of the 511 that may wait in nginx's queue, and of the files that a process may have open."""
_KEPT: Final = 4
_ACCEPT_SECONDS: Final = 0.25
_FIRST_WAIT: Final = 0.001


class Switchboard:
    """The lines to one address and port; `workers` tells who accepts there now."""

    def __init__(
        self, endpoint: Endpoint, workers: Callable[[], Sequence[int]], clock: Clock, seconds: float
    ) -> None:
        self.endpoint = endpoint
        self.workers = workers
        self.clock = clock
        self.seconds = seconds
        self.lines: dict[int, list[Line]] = {}
        self.current: tuple[int, ...] = ()
        self.mute = False
        """Whether connections are not accepted before the client speaks (`deferred`), or not here at all."""

    def refresh(self) -> None:
        """See who accepts now, and let go of the lines of all others: one that shuts down waits for them."""
        self.current = tuple(self.workers())
        self.hang_up(self.current)

    def gather(self, wanted: Mapping[int, int]) -> None:
        """Dial until each worker has as many lines as wanted, or the kernel would have shared them out."""
        workers = max(len(self.current), 1)
        left = 2 * (_IN_A_ROW * workers + 1) + 2 * sum(wanted.values())
        burst = max(_LEAST_BURST, min(_IN_A_ROW * workers, _LARGEST_BURST))
        while left > 0 and not self.mute and self._lacking(wanted):
            lines = dial(self.endpoint, min(burst, left), self.seconds)
            left -= burst
            if not lines:
                return
            self._sort(lines, wanted)

    def take(self, worker: int) -> Line | None:
        """Give away one line of a worker; whoever gets it closes it."""
        waiting = self.lines.get(worker)
        return waiting.pop() if waiting else None

    def hang_up(self, current: Sequence[int] = ()) -> None:
        """Close the lines of all but the `current` workers."""
        for worker in [one for one in self.lines if one not in current]:
            for line in self.lines.pop(worker):
                line.hang_up()

    def _lacking(self, wanted: Mapping[int, int]) -> bool:
        return any(len(self.lines.get(worker, ())) < count for worker, count in wanted.items())

    def _sort(self, lines: Sequence[Line], wanted: Mapping[int, int]) -> None:
        sockets = self._accepted(lines)
        if not any(sockets):
            self.mute = True
        for line, worker in zip(lines, host.holders(sockets, self.current), strict=True):
            if worker is not None and len(self.lines.get(worker, ())) < max(wanted.get(worker, 0), _KEPT):
                self.lines.setdefault(worker, []).append(Line(line.socket, line.pair, worker))
            else:
                line.hang_up()

    def _accepted(self, lines: Sequence[Line]) -> list[str | None]:
        """Wait until every line was accepted, for as long as a server that is alive may take."""
        pairs = [line.pair for line in lines]
        end, wait = self.clock.monotonic() + _ACCEPT_SECONDS, _FIRST_WAIT
        while True:
            sockets = host.accepted(pairs)
            if all(sockets) or self.clock.monotonic() >= end:
                return sockets
            self.clock.wait(wait)
            wait *= 2
