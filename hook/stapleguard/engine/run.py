"""One deployment under way: what it was given, and what it has learned so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from stapleguard.diagnosis import Strand
from stapleguard.engine.intake import Answer, Certificate
from stapleguard.engine.previous import Revival
from stapleguard.engine.proof import Proof, Target
from stapleguard.engine.survey import Mode, Survey
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import Prime, Verdict
from stapleguard.servers import nginx
from stapleguard.transaction import Record

INCLUDE: Final = "nginx.conf"


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
    instance = found.instance
    expected = tuple(one.expected for one in certificates)
    if instance is None:
        return Target(found.endpoints, expected)
    return Target(found.endpoints, expected, lambda _: nginx.workers(instance))


def wants_file(run: Run) -> bool:
    """Whether the first staple comes from a file: design, Priming. One file cannot serve two certificates."""
    if len(run.certificates) > 1 or run.found.mode is Mode.WATCH:
        return False
    match run.world.config.prime_for(run.name):
        case Prime.FILE:
            return True
        case Prime.WARM:
            return False
        case Prime.AUTO:
            return run.must_staple
        case _ as never:
            assert_never(never)
