"""One deployment under way: what it was given, and what it has learned so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from stapleguard.diagnosis import Strand
from stapleguard.engine.intake import Answer, Certificate
from stapleguard.engine.previous import Revival
from stapleguard.engine.proof import Proof, Target
from stapleguard.engine.survey import Mode, Survey, Use
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import Prime, Verdict
from stapleguard.servers import Stapling, nginx
from stapleguard.transaction import Record


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds: for the proof, for a responder in the foreground, of patience with a fresh certificate."""

    prove: float
    wait: float
    patience: float


@dataclass
class Run:
    """What one deployment has learned so far; the acts of the transaction fill it."""

    world: World
    name: str
    budget: Budget
    certificates: tuple[Certificate, ...]
    found: Survey
    record: Record
    files: dict[str, bytes] = field(default_factory=dict)
    revival: Revival | None = None
    answers: tuple[Answer, ...] = ()
    proof: Proof | None = None
    findings: list[Finding] = field(default_factory=list)
    verdict: Verdict = Verdict.INCONCLUSIVE
    before: tuple[Strand, ...] = ()
    target_override: Target | None = None
    leaving: frozenset[int] = frozenset()
    held: bool = False
    """The previous generation stays, and the renewal waits in the queue until somebody mends something."""
    came_from: tuple[str, ...] = ()
    """Where the certificates came from at first, where they were read from a generation of ours."""

    @property
    def target(self) -> Target:
        """Where the new generation is looked for."""
        target = self.target_override or target_of(self.found, self.certificates)
        return replace(target, leaving=self.leaving)

    @property
    def origin(self) -> tuple[str, ...]:
        """Where the ACME client has the certificates."""
        return self.came_from or tuple(one.material.paths.get("cert", "") for one in self.certificates)

    @property
    def must_staple(self) -> bool:
        """Whether any leaf is must-staple (RFC 7633)."""
        return any(one.material.facts.must_staple for one in self.certificates)


def target_of(found: Survey, certificates: Sequence[Certificate]) -> Target:
    """Return where these certificates are looked for, and by whom they are served."""
    return Target(found.endpoints, tuple(one.expected for one in certificates), found.workers)


def stapling_for(run: Run, use: Use) -> Stapling:
    """Choose where a server takes its first staple from (design: Priming)."""
    if use.mode is Mode.WATCH:
        return Stapling.FETCH
    return _choose(run, use.server.takes(use.instance, use.sites, len(run.certificates)))


def _choose(run: Run, able: frozenset[Stapling]) -> Stapling:
    fetched = Stapling.FETCH if Stapling.FETCH in able else Stapling.OFF
    filed = Stapling.FILE if Stapling.FILE in able else fetched
    match run.world.config.prime_for(run.name):
        case Prime.FILE:
            return filed
        case Prime.WARM:
            return fetched
        case Prime.AUTO:
            # A server that cannot ask for itself has nothing without a file.
            return filed if run.must_staple or fetched is Stapling.OFF else fetched
        case _ as never:
            assert_never(never)


def choices(run: Run) -> dict[str, Stapling]:
    """Choose for each kind of server that uses the lineage; for nginx, when none does yet."""
    if not run.found.uses:
        return {nginx.KIND: _choose(run, nginx.takes(None, (), len(run.certificates)))}
    return {use.server.KIND: stapling_for(run, use) for use in run.found.uses}


def wants_file(run: Run) -> bool:
    """Whether any server takes its first staple from a file."""
    return Stapling.FILE in choices(run).values()
