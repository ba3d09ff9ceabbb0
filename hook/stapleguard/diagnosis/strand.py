"""What was seen of one endpoint with one key type, and what it means by itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.model import Endpoint, HandshakeFault, Json, KeyType, LeafFacts, Observation, TlsVersion
from stapleguard.ocsp import Acceptance, Judgement

ASSUMED_WORKERS: Final = 4
"""How many workers a server is held to have where nobody can tell; stated in the report as `statistical`."""


class Need(Enum):
    """Whether a staple is part of the proof."""

    STAPLE = "staple"
    NOT_APPLICABLE = "not-applicable"


class Served(Enum):
    """Which leaf a handshake showed."""

    EXPECTED = "expected"
    OTHER = "other"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One observation with the judge's and the chain check's word on it."""

    observation: Observation
    served: Served
    leaf: LeafFacts | None = None
    judgement: Judgement | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def good_staple(self) -> bool:
        """Whether an acceptable staple came with it."""
        return self.judgement is not None and self.judgement.acceptance is Acceptance.ACCEPTED


class Method(Enum):
    """How workers were told apart."""

    EXACT = "exact"
    STATISTICAL = "statistical"


@dataclass(frozen=True, slots=True)
class Workers:
    """How many worker processes were seen, and how many of them send a good staple."""

    seen: int
    stapled: int
    total: int | None
    method: Method
    confidence: float


@dataclass(frozen=True, slots=True)
class Strand:
    """All that was seen of one endpoint with one key type, oldest first.

    `workers` are the serving processes where this host can tell them apart. Elsewhere `confidence` is what
    is wanted (0: one handshake is all), and `assumed` how many workers there are held to be.
    """

    endpoint: Endpoint
    key_type: KeyType | None
    need: Need
    must_staple: bool
    sightings: tuple[Sighting, ...]
    workers: frozenset[int] | None = None
    confidence: float = 0.99
    assumed: int = ASSUMED_WORKERS

    @property
    def last(self) -> Sighting | None:
        """The newest sighting that showed a certificate, else the newest at all."""
        shown = [one for one in self.sightings if one.served is not Served.NOTHING]
        return shown[-1] if shown else (self.sightings[-1] if self.sightings else None)

    @property
    def latest_by_worker(self) -> Mapping[int, Sighting]:
        """The newest sighting of each current worker."""
        latest: dict[int, Sighting] = {}
        for one in self.sightings:
            worker = one.observation.worker
            if worker is not None and (self.workers is None or worker in self.workers):
                latest[worker] = one
        return latest

    @property
    def latest_by_version(self) -> Mapping[TlsVersion, Sighting]:
        """The newest sighting of each protocol version that was asked for by itself."""
        pinned = (one for one in self.sightings if one.observation.ask.tls is not None)
        return {one.observation.ask.tls: one for one in pinned if one.observation.ask.tls is not None}

    def good(self, sighting: Sighting) -> bool:
        """Whether one sighting shows all that is wanted."""
        if sighting.served is not Served.EXPECTED or criticals(sighting.findings):
            return False
        match self.need:
            case Need.STAPLE:
                return sighting.good_staple
            case Need.NOT_APPLICABLE:
                return sighting.observation.staple is None
            case _ as never:
                assert_never(never)

    @property
    def run(self) -> int:
        """How many good sightings in a row end the list."""
        count = 0
        for one in reversed(self.sightings):
            if not self.good(one):
                break
            count += 1
        return count

    @property
    def coverage(self) -> Workers:
        """Who was seen: exactly where the kernel told, else with the confidence of the run of good ones."""
        if self.workers:
            latest = self.latest_by_worker
            stapled = sum(1 for one in latest.values() if one.good_staple)
            return Workers(len(latest), stapled, len(self.workers), Method.EXACT, 1.0)
        confidence = confidence_of(self.run, self.assumed)
        return Workers(0, 0, None, Method.STATISTICAL, confidence)

    @property
    def starved(self) -> bool:
        """Whether somebody was asked again and again and still sends no good staple."""
        if not self.workers:
            return len(self.sightings) >= 8 and self.run == 0
        asked = Counter(one.observation.worker for one in self.sightings)
        return any(asked[worker] >= 3 and not self.good(one) for worker, one in self.latest_by_worker.items())

    @property
    def settled(self) -> bool:
        """Whether all that is wanted was seen, from every worker."""
        if not self.sightings or not self.good(self.sightings[-1]):
            return False
        if not all(self.good(one) for one in self.latest_by_version.values()):
            return False
        if self.workers:
            latest = self.latest_by_worker
            return len(latest) == len(self.workers) and all(self.good(one) for one in latest.values())
        return self.run >= self.wanted

    @property
    def doomed(self) -> bool:
        """Whether waiting mends nothing: the right leaf came, with a chain or a name that is not."""
        latest = [*self.latest_by_worker.values()] if self.workers else list(self.sightings[-1:])
        if not latest or (self.workers and len(latest) < len(self.workers)):
            return False
        return all(one.served is Served.EXPECTED and criticals(one.findings) for one in latest)

    @property
    def wanted(self) -> int:
        """How many good handshakes in a row are enough where workers cannot be told apart."""
        return handshakes_needed(self.assumed, self.confidence) if self.confidence > 0 else 1


def confidence_of(run: int, workers: int) -> float:
    """Return the least probability that `run` handshakes met each of `workers` equally likely ones."""
    if workers <= 1:
        return 1.0 if run else 0.0
    return max(0.0, 1.0 - workers * (1.0 - 1.0 / workers) ** run) if run else 0.0


def handshakes_needed(workers: int, confidence: float) -> int:
    """Return how many handshakes in a row make it that sure that each of `workers` was met (union bound)."""
    if workers <= 1:
        return 1
    return math.ceil(math.log((1.0 - confidence) / workers) / math.log(1.0 - 1.0 / workers))


class Decision(Enum):
    """What the poll does next."""

    SETTLED = "settled"
    WAIT = "wait"
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds since the poll began and since it last learned something new, with their limits."""

    elapsed: float
    idle: float
    budget: float
    quiet: float


def settle(strands: Sequence[Strand], patience: Patience) -> Decision:
    """Decide whether the poll is over. Nothing to look at is never settled."""
    if strands and all(strand.settled for strand in strands):
        return Decision.SETTLED
    if strands and all(strand.settled or strand.doomed for strand in strands):
        return Decision.GIVE_UP
    if patience.elapsed >= patience.budget or patience.idle >= patience.quiet:
        return Decision.GIVE_UP
    return Decision.WAIT


_FAULT_CODES: Final[Mapping[HandshakeFault, Code]] = {
    HandshakeFault.NAME: Code.DNS_NAME_NOT_FOUND,
    HandshakeFault.REFUSED: Code.SERVED_UNREACHABLE,
    HandshakeFault.BLOCKED: Code.SERVED_UNREACHABLE,
    HandshakeFault.RESET: Code.SERVED_TLS_FAILURE,
    HandshakeFault.STALLED: Code.SERVED_UNREACHABLE,
    HandshakeFault.NOT_TLS: Code.SERVED_TLS_FAILURE,
    HandshakeFault.ALERT: Code.SERVED_TLS_FAILURE,
    HandshakeFault.NO_STARTTLS: Code.SERVED_TLS_FAILURE,
}


def strand_findings(strand: Strand) -> tuple[Finding, ...]:
    """Name everything that is wrong or worth knowing on one strand, the newest facts deciding."""
    where = str(strand.endpoint) + (f" ({strand.key_type.value})" if strand.key_type else "")
    last = strand.last
    if last is None:
        return (find(Code.SERVED_UNREACHABLE, where, f"{where} was not observed"),)
    observation = last.observation
    if observation.fault is not None:
        code = _FAULT_CODES[observation.fault]
        text = f"no handshake with {where}: {observation.detail or observation.fault.value}"
        return (find(code, where, text, evidence={"fault": observation.fault.value}),)
    found = list(last.findings)
    if last.served is Served.OTHER and last.leaf is not None:
        evidence: dict[str, Json] = {"served": last.leaf.sha256, "not_after": last.leaf.not_after.isoformat()}
        found.append(
            find(Code.SERVED_OLD_CERTIFICATE, where, f"{where} serves another certificate", evidence=evidence)
        )
        return tuple(found)
    return (*found, *_staple_findings(strand, where, last))


def _version_findings(strand: Strand, where: str) -> list[Finding]:
    """Say that a staple is missing under one protocol version, though workers send it under another."""
    bare = [tls for tls, one in strand.latest_by_version.items() if one.observation.staple is None]
    code = Code.STAPLE_MUST_STAPLE_UNMET if strand.must_staple else Code.STAPLE_ABSENT
    return [
        find(code, where, f"{where} sends no staple under {tls.value}", evidence={"protocol": tls.value})
        for tls in bare
    ]


def _staple_findings(strand: Strand, where: str, last: Sighting) -> list[Finding]:
    latest = [*strand.latest_by_worker.values()] or [last]
    present = [one for one in latest if one.observation.staple is not None]
    if strand.need is Need.NOT_APPLICABLE:
        if not present:
            return []
        return [
            find(
                Code.STAPLE_LEFT_OVER,
                where,
                f"{where} staples an answer though the certificate names no responder",
            )
        ]
    found: list[Finding] = []
    for one in present:
        judgement = one.judgement
        if judgement is None:
            continue
        if judgement.acceptance is Acceptance.REJECTED:
            first = next(iter(criticals(judgement.findings)), None)
            why = first.message if first else "it did not pass the judge"
            evidence: dict[str, Json] = {
                "codes": [one.code.value for one in judgement.findings],
                "sha256": judgement.sha256,
                "worker": one.observation.worker,
            }
            found.append(
                find(
                    Code.SERVER_SERVES_BAD_STAPLE,
                    where,
                    f"{where} staples a bad answer: {why}",
                    evidence=evidence,
                )
            )
        found += [one for one in judgement.findings if one not in found]
    bare = len(latest) - len(present)
    if bare == 0:
        return [*found, *_version_findings(strand, where)]
    counts: dict[str, Json] = {"workers_unstapled": bare, "workers_seen": len(latest)}
    if present:
        text = f"{bare} of {len(latest)} workers of {where} send no staple"
        found.append(find(Code.SERVER_WORKER_UNSTAPLED, where, text, evidence=counts))
    elif not strand.must_staple:
        found.append(find(Code.STAPLE_ABSENT, where, f"{where} sends no staple", evidence=counts))
    if strand.must_staple:
        text = (
            f"{where} sends no staple, and the certificate is must-staple: "
            "Firefox and GnuTLS clients refuse it"
        )
        found.append(find(Code.STAPLE_MUST_STAPLE_UNMET, where, text, evidence=counts))
    return found
