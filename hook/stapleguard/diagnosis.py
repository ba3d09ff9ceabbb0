"""From what was seen to what it means: settled or not, the findings, the cause, the verdict, whether to undo.

Pure: judged sightings in, decisions out. The engine gathers and obeys.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, assert_never

from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.model import (
    Endpoint,
    HandshakeFault,
    Json,
    KeyType,
    LeafFacts,
    Observation,
    Severity,
    Verdict,
)
from stapleguard.ocsp import Acceptance, Judgement

ASSUMED_WORKERS: Final = 4
"""How many workers a server is held to have where nobody can tell; stated in the report as `statistical`."""
NEAR_EXPIRY: Final = timedelta(days=1)
"""A previous certificate with less life than this is nothing to go back to (promise I5)."""


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
    """All that was seen of one endpoint with one key type, oldest first; `workers` are the serving pids."""

    endpoint: Endpoint
    key_type: KeyType | None
    need: Need
    must_staple: bool
    sightings: tuple[Sighting, ...]
    workers: frozenset[int] | None = None
    confidence: float = 0.99

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
        confidence = confidence_of(self.run, ASSUMED_WORKERS)
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
        if self.workers:
            latest = self.latest_by_worker
            return len(latest) == len(self.workers) and all(self.good(one) for one in latest.values())
        return self.run >= handshakes_needed(ASSUMED_WORKERS, self.confidence)


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
        return found
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


_CAUSE_RANK: Final[tuple[str, ...]] = (
    "host.",
    "material.",
    "server.config-invalid",
    "server.not-running",
    "server.reload-not-taken",
    "server.unsupported",
    "server.variable-certificate",
    "server.stapling-disabled",
    "server.issuer-missing",
    "ocsp.revoked",
    "dns.",
    "net.",
    "responder.",
    "ocsp.",
    "server.responder-unresolvable-at-load",
    "server.resolver-missing",
    "server.resolver-broken",
    "server.trust-missing",
    "server.blocked-only",
    "server.",
    "served.",
    "staple.",
)


def cause_of(findings: Iterable[Finding]) -> Code | None:
    """Return the code of the most probable root: what lies nearest the beginning of the chain of events.

    A critical finding comes before a warning; an info is never a cause.
    """

    def rank(found: Finding) -> tuple[int, int]:
        place = next(
            (i for i, start in enumerate(_CAUSE_RANK) if found.code.value.startswith(start)), len(_CAUSE_RANK)
        )
        return (0 if found.critical else 1, place)

    ranked = sorted((found for found in findings if found.severity is not Severity.INFO), key=rank)
    return ranked[0].code if ranked else None


BREAKING: Final = frozenset(
    {
        Code.SERVER_SERVES_BAD_STAPLE,
        Code.STAPLE_MUST_STAPLE_UNMET,
        Code.SERVED_TLS_FAILURE,
        Code.SERVED_UNREACHABLE,
        Code.SERVED_OLD_CERTIFICATE,
        Code.SERVED_NOT_TRUSTED,
        Code.SERVED_NAME_MISMATCH,
        Code.SERVED_CHAIN_INCOMPLETE,
        Code.SERVER_CONFIG_INVALID,
        Code.SERVER_RELOAD_NOT_TAKEN,
    }
)
"""Findings after a publish that real clients suffer from: worth going back for, where that helps."""

MISSING: Final = frozenset({Code.STAPLE_ABSENT, Code.SERVER_WORKER_UNSTAPLED})
"""A staple is missing though nothing breaks by that alone."""

MAY_PASS: Final = (
    "dns.",
    "net.",
    "responder.",
    "ocsp.try-later",
    "ocsp.unauthorized",
    "ocsp.unknown",
    "ocsp.internal-error",
)
"""Causes that a fresh certificate's responder may grow out of by itself."""


def may_pass(code: Code | None) -> bool:
    """Whether waiting alone may cure this cause (design: a fresh certificate's responder may lag)."""
    return (
        code is not None and code.value.startswith(MAY_PASS) and code is not Code.RESPONDER_FORBIDDEN_ADDRESS
    )


@dataclass(frozen=True, slots=True)
class Previous:
    """What is known of the generation to go back to; `staple_until` is the end of its staple file, if any."""

    leaf: LeafFacts
    served_before: bool
    staple_until: datetime | None = None
    faults: tuple[Finding, ...] = ()


def unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings without repetition of code, subject and message, in order."""
    return tuple({(one.code, one.subject, one.message): one for one in findings}.values())


class Undo(Enum):
    """Whether going back helps (promise I5)."""

    HELPS = "helps"
    NO_PREVIOUS = "there is no previous generation"
    EXPIRING = "the previous certificate has expired or is about to"
    UNFIT = "the previous generation is unfit itself"
    SHARED = "the previous certificate would meet the same fault"
    NOT_WANTED = "nothing that is served is broken by it"


def undo(
    findings: Sequence[Finding], previous: Previous | None, *, wanted: frozenset[Code], now: datetime
) -> Undo:
    """Decide whether the previous generation is put back; `wanted` are the codes policy goes back for."""
    if not any(found.code in wanted and found.severity is not Severity.INFO for found in findings):
        return Undo.NOT_WANTED
    if previous is None:
        return Undo.NO_PREVIOUS
    if previous.leaf.not_after - now < NEAR_EXPIRY:
        return Undo.EXPIRING
    if criticals(previous.faults):
        return Undo.UNFIT
    needs_staple = bool(previous.leaf.ocsp_urls) and previous.leaf.must_staple
    cause = cause_of(findings)
    if needs_staple and may_pass(cause) and (previous.staple_until is None or previous.staple_until <= now):
        return Undo.SHARED
    return Undo.HELPS


def verdict_of(findings: Sequence[Finding], strands: Sequence[Strand]) -> Verdict:
    """Return the verdict of a proof alone: verified, not-applicable, degraded or inconclusive."""
    reached = [
        strand for strand in strands if strand.last is not None and strand.last.observation.fault is None
    ]
    if not reached:
        return Verdict.INCONCLUSIVE
    if criticals(findings) or any(found.code in MISSING for found in findings):
        return Verdict.DEGRADED
    if all(strand.need is Need.NOT_APPLICABLE for strand in strands):
        return Verdict.NOT_APPLICABLE
    return Verdict.VERIFIED


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found out: one verdict, one cause, all findings; `extra` is of this command only."""

    command: str
    verdict: Verdict
    cause: Code | None = None
    findings: tuple[Finding, ...] = ()
    strands: tuple[Strand, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
    exit_status: int | None = None

    @property
    def status(self) -> int:
        """The process's exit status."""
        return int(self.verdict.exit_status) if self.exit_status is None else self.exit_status
