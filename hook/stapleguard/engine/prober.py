"""One round of looking: which handshakes are needed, with whom, and what they showed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from stapleguard import host
from stapleguard.diagnosis import Need, Strand
from stapleguard.engine.sight import Expected, Sighter
from stapleguard.engine.switchboard import Switchboard
from stapleguard.engine.world import World
from stapleguard.model import Ask, Endpoint, HandshakeFault, KeyType, Observation, TlsVersion
from stapleguard.wire.handshake import Limits, observe
from stapleguard.wire.line import Line, SocketPair, is_local

_LEAVE_SECONDS: Final = 1.0
"""nginx lets its old workers accept for 100 ms more; one that still does after this serves what it has."""
KEY_TYPES: Final = (KeyType.RSA, KeyType.ECDSA)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to look and for what; without `expected` whatever is served is looked at.

    `workers` lists the processes of this host that accept at an endpoint, none where that is not known.
    `leaving` are those that a reload has replaced: they are not asked while they may still be on their way
    out, and nothing is proved before they are gone.
    """

    endpoints: tuple[Endpoint, ...]
    expected: tuple[Expected, ...] = ()
    workers: Callable[[Endpoint], Sequence[int]] = field(default=lambda _: ())
    leaving: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Wish:
    """One handshake that a round wants to make, on a line of `worker` where one is named."""

    strand: int
    ask: Ask
    worker: int | None = None


class Prober:
    """Looks and remembers: the strands, the open lines to servers of this host, what was judged."""

    def __init__(self, world: World, target: Target) -> None:
        self.world = world
        self.target = target
        self.sighter = Sighter(world, target.expected)
        self.limits = Limits(world.config.handshake_timeout, world.config.handshake_timeout)
        self.begun = world.clock.monotonic()
        self.boards: dict[tuple[str, int], Switchboard] = {}
        for endpoint in target.endpoints:
            place = (endpoint.address, endpoint.port)
            if place not in self.boards and is_local(endpoint.address):
                who = (lambda one: lambda: target.workers(one))(endpoint)
                self.boards[place] = Switchboard(endpoint, who, world.clock, self.limits.connect)
        self.strands = self._first()
        self.pinned = self._pinned()

    def _first(self) -> tuple[Strand, ...]:
        """Return the empty strands: one for each endpoint and expected certificate."""
        config = self.world.config

        def strand(endpoint: Endpoint, expected: Expected | None) -> Strand:
            return Strand(
                endpoint,
                expected.key_type if expected else None,
                expected.need if expected else Need.STAPLE,
                expected.must_staple if expected else False,
                (),
                None,
                config.confidence,
                config.assumed_workers,
            )

        wanted: Sequence[Expected | None] = self.target.expected or (None,)
        return tuple(strand(one, expected) for one in self.target.endpoints for expected in wanted)

    def _pinned(self) -> frozenset[int]:
        """Tell which strands must ask for their key type: those whose endpoint has several."""
        counts: dict[Endpoint, int] = {}
        for strand in self.strands:
            counts[strand.endpoint] = counts.get(strand.endpoint, 0) + 1
        return frozenset(i for i, strand in enumerate(self.strands) if counts[strand.endpoint] > 1)

    def split_by_key_type(self, kinds: Sequence[KeyType]) -> None:
        """Ask each endpoint for a certificate of each kind of key; where it has several, follow them all.

        Where it has neither and no TLS at all, that is what was seen of it.
        """
        asks = [Ask(one.endpoint, None, kind) for one in self.strands for kind in kinds]
        seen = observe(asks, self.limits, now=self.world.clock.now)
        strands: list[Strand] = []
        for index, strand in enumerate(self.strands):
            mine = seen[index * len(kinds) : (index + 1) * len(kinds)]
            offered = [one.ask.key_type for one in mine if one.fault is None]
            several = offered if len(offered) > 1 else [None]
            dead = [one for one in mine if one.fault not in (None, HandshakeFault.ALERT)]
            known = tuple(self.sighter.sight(one, None) for one in (dead if len(dead) == len(mine) else ()))
            strands += [replace(strand, key_type=kind, sightings=known) for kind in several]
        self.strands = tuple(strands)
        self.pinned = self._pinned()

    def close(self) -> None:
        """Let go of every line."""
        for board in self.boards.values():
            board.hang_up()

    def look(self, each: int, versions: Sequence[TlsVersion]) -> None:
        """Make a round: with each worker that is still to be seen right, else `each` for every strand.

        Each of `versions` is asked for once, and again those that were not right yet.
        """
        for board in self.boards.values():
            board.refresh()
        wishes: list[_Wish] = []
        for index, strand in enumerate(self.strands):
            current = self._current(strand)
            if strand.settled and frozenset(current) == (strand.workers or frozenset()):
                continue
            unmet = [tls for tls, one in strand.latest_by_version.items() if not strand.good(one)]
            pinned = strand.key_type if index in self.pinned else None
            good = [one for one, last in strand.latest_by_worker.items() if strand.good(last)]
            # A version is asked for where a worker is known to be right: a cold one would be blamed on it.
            able = next((one for one in good if one in current), None)
            wishes += [_Wish(index, Ask(strand.endpoint, tls, pinned), able) for tls in versions or unmet]
            ask = Ask(strand.endpoint, None, pinned)
            wishes += [_Wish(index, ask, one) for one in self._unproved(strand, current)]
            if not current:
                wishes += [_Wish(index, ask)] * each
        self._grant(wishes)

    def _board(self, strand: Strand) -> Switchboard | None:
        return self.boards.get((strand.endpoint.address, strand.endpoint.port))

    def _current(self, strand: Strand) -> tuple[int, ...]:
        """List the workers that can be chosen for a strand."""
        board = self._board(strand)
        return board.current if board is not None and not board.mute else ()

    def _unproved(self, strand: Strand, current: Sequence[int]) -> Sequence[int]:
        """List the workers that a handshake is needed with; one at least, for the last word must be new."""
        late = self.world.clock.monotonic() - self.begun > _LEAVE_SECONDS
        staying = [one for one in current if late or one not in self.target.leaving]
        latest = strand.latest_by_worker
        lacking = [one for one in staying if one not in latest or not strand.good(latest[one])]
        return lacking or staying[:1]

    def _grant(self, wishes: Sequence[_Wish]) -> None:
        self._gather(wishes)
        asks: list[Ask] = []
        lines: dict[int, Line] = {}
        made: list[_Wish] = []
        for wish in wishes:
            board = self._board(self.strands[wish.strand])
            line = board.take(wish.worker) if board is not None and wish.worker is not None else None
            if wish.worker is not None and line is None and board is not None and not board.mute:
                continue  # not reached in this round
            if line is not None:
                lines[len(asks)] = line
            asks.append(wish.ask)
            made.append(wish)
        seen = self._observe(asks, lines)
        for board in self.boards.values():
            board.refresh()
        added: list[list[Observation]] = [[] for _ in self.strands]
        for wish, observation in zip(made, seen, strict=True):
            # A version that the server does not offer; the handshakes without one tell the rest.
            if wish.ask.tls is None or observation.fault is not HandshakeFault.ALERT:
                added[wish.strand].append(observation)
        self.strands = tuple(
            self._extended(strand, new) for strand, new in zip(self.strands, added, strict=True)
        )

    def _gather(self, wishes: Sequence[_Wish]) -> None:
        for board in self.boards.values():
            counts: dict[int, int] = {}
            for wish in wishes:
                if wish.worker is not None and self._board(self.strands[wish.strand]) is board:
                    counts[wish.worker] = counts.get(wish.worker, 0) + 1
            if counts:
                board.gather(counts)

    def _observe(self, asks: Sequence[Ask], lines: dict[int, Line]) -> Sequence[Observation]:
        """Make the handshakes; where lines tell nothing, ask afterwards who held the connections."""
        mute = [board for board in self.boards.values() if board.mute]
        candidates = [worker for board in mute for worker in board.current]
        if not candidates:
            return observe(asks, self.limits, now=self.world.clock.now, lines=lines)

        def owners(pairs: Sequence[SocketPair]) -> Sequence[int | None]:
            return host.owners(pairs, candidates)

        return observe(asks, self.limits, now=self.world.clock.now, lines=lines, owners=owners)

    def _extended(self, strand: Strand, seen: Sequence[Observation]) -> Strand:
        key_type = strand.key_type if self.target.expected else None
        new = tuple(self.sighter.sight(one, key_type) for one in seen)
        board = self._board(strand)
        current = frozenset(board.current) if board is not None else frozenset()
        longer = replace(strand, sightings=(*strand.sightings, *new))
        if board is not None and board.mute and not any(one.observation.worker for one in longer.sightings):
            current = frozenset()  # whoever accepts is none of them: a proxy, or another namespace
        longer = replace(longer, workers=current or None)
        return self._fitted(longer)

    def _fitted(self, strand: Strand) -> Strand:
        """Without an expectation the served certificate itself says what it needs."""
        last = strand.last
        if self.target.expected or last is None or last.leaf is None:
            return strand
        need = Need.STAPLE if last.leaf.ocsp_urls else Need.NOT_APPLICABLE
        return replace(strand, need=need, must_staple=last.leaf.must_staple, key_type=last.leaf.key_type)
