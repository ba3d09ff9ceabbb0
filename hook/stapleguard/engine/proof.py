"""The poll: fresh full handshakes until every endpoint, key type and worker is right, or time is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stapleguard.diagnosis import Decision, Patience, Strand, differences, settle, strand_findings, unique
from stapleguard.engine.prober import Prober, Target
from stapleguard.engine.sight import Expected
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import TlsVersion

__all__ = ["Expected", "Proof", "Target", "look_once", "prove"]

_VERSIONS: Final = (TlsVersion.TLS1_2, TlsVersion.TLS1_3)
_IN_A_ROW: Final = 16
_HOPELESS: Final = 3


@dataclass(frozen=True, slots=True)
class Proof:
    """How the poll ended."""

    decision: Decision
    strands: tuple[Strand, ...]
    findings: tuple[Finding, ...]
    seconds: float


class _Rounds:
    """How long to wait and how much to ask in the rounds of one poll; grows while nothing new is learned."""

    def __init__(self, world: World) -> None:
        self.config = world.config
        self.interval = world.config.prove_interval
        self.score = 0.0
        self.barren = 0
        self.each = 0

    def learned(self, strands: Sequence[Strand]) -> bool:
        """Take note of what the strands show now; tell whether it is more than before."""
        reached = sum(_score(strand) for strand in strands)
        if reached > self.score:
            self.score, self.barren, self.interval = reached, 0, self.config.prove_interval
            return True
        self.barren += 1
        return False

    def size(self, strands: Sequence[Strand], workers: int) -> int:
        """Tell how many handshakes each strand gets whose workers cannot be chosen."""
        missing = max((strand.wanted - strand.run for strand in strands), default=1)
        fresh = max(4, 2 * workers) if workers else max(1, missing)
        limit = max(fresh, _IN_A_ROW * workers + 1)
        self.each = fresh if self.barren == 0 else min(2 * max(self.each, 4), limit)
        return self.each

    def pause(self, left: float) -> float:
        """Seconds until the next round; each longer than the one before."""
        wait = min(self.interval, max(0.0, left))
        self.interval = min(self.interval * self.config.prove_backoff, self.config.prove_interval_max)
        return wait


def prove(
    world: World,
    target: Target,
    timeout: float,
    stuck: Callable[[], None] | None = None,
    prepare: Callable[[Prober], None] | None = None,
) -> Proof:
    """Poll until settled, or the budget or all hope is spent; `stuck` is called once when nothing moves.

    `prepare` may ask around before the first round.
    """
    prober = Prober(world, target)
    try:
        if prepare is not None:
            prepare(prober)
        return _poll(world, prober, timeout, stuck)
    finally:
        prober.close()


def _poll(world: World, prober: Prober, timeout: float, stuck: Callable[[], None] | None) -> Proof:
    clock, rounds, quiet = world.clock, _Rounds(world), world.config.prove_quiet
    begun = moved = clock.monotonic()
    versions: tuple[TlsVersion, ...] = _VERSIONS
    decision = Decision.WAIT if any(not _silent(one) for one in prober.strands) else Decision.GIVE_UP
    while decision is Decision.WAIT:
        mute = [len(board.current) for board in prober.boards.values() if board.mute]
        prober.look(rounds.size(prober.strands, max(mute, default=0)), versions)
        versions = ()
        at = clock.monotonic()
        if rounds.learned(prober.strands):
            moved = at
        # A barren round may be chance or a cold worker; what stays barren, or does not answer, is hopeless.
        hopeless = rounds.barren >= _HOPELESS or all(map(_silent, prober.strands))
        idle = at - moved if hopeless else 0.0
        decision = settle(prober.strands, Patience(at - begun, idle, timeout, quiet))
        if decision is not Decision.WAIT:
            continue
        if stuck is not None and idle > quiet / 3 and any(one.starved for one in prober.strands):
            stuck()
            stuck, moved, rounds.barren = None, clock.monotonic(), 0
        clock.wait(rounds.pause(timeout - (at - begun)))
    found = [found for strand in prober.strands for found in strand_findings(strand)]
    found += differences(prober.strands)
    return Proof(decision, prober.strands, unique(found), clock.monotonic() - begun)


def _silent(strand: Strand) -> bool:
    """Whether it was asked already, and never answered with TLS."""
    return strand.last is not None and strand.last.observation.fault is not None


def _score(strand: Strand) -> float:
    """How much of what is wanted was seen: it only grows while the poll gets on."""
    versions = sum(1 for one in strand.latest_by_version.values() if strand.good(one))
    if strand.workers:
        return versions + float(sum(1 for one in strand.latest_by_worker.values() if strand.good(one)))
    return versions + float(min(strand.run, 1000))


def look_once(world: World, target: Target) -> tuple[Strand, ...]:
    """Make one handshake for each strand: what is served at this moment."""
    prober = Prober(world, replace(target, workers=lambda _: ()))
    try:
        prober.look(1, ())
        return prober.strands
    finally:
        prober.close()
