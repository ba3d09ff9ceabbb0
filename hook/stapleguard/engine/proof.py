"""The poll: fresh full handshakes until every endpoint, key type and worker is right, or time is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cryptography import x509

from stapleguard import host, ocsp
from stapleguard.diagnosis import (
    Decision,
    Need,
    Patience,
    Served,
    Sighting,
    Strand,
    settle,
    strand_findings,
    unique,
)
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding, find
from stapleguard.material import NameMatch, TrustPath, leaf_facts, matches_name
from stapleguard.model import Ask, Endpoint, HandshakeFault, KeyType, Observation, TlsVersion
from stapleguard.wire.handshake import Limits, SocketPair, observe
from stapleguard.wire.trust import verify_path


@dataclass(frozen=True, slots=True)
class Expected:
    """One certificate that must be served, and what must come with it."""

    sha256: str
    key_type: KeyType
    issuer: x509.Certificate | None
    need: Need
    must_staple: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where to look and for what; without `expected` whatever is served is looked at."""

    endpoints: tuple[Endpoint, ...]
    expected: tuple[Expected, ...] = ()
    workers: Callable[[], Sequence[int]] = field(default=lambda: ())


@dataclass(frozen=True, slots=True)
class Proof:
    """How the poll ended."""

    decision: Decision
    strands: tuple[Strand, ...]
    findings: tuple[Finding, ...]
    seconds: float


class Prober:
    """Looks, and judges what it saw; verifies each chain once, judges each staple anew (times go on)."""

    def __init__(self, world: World, target: Target) -> None:
        self.world = world
        self.target = target
        self.paths: dict[tuple[bytes, ...], TrustPath] = {}
        self.several = len(target.expected) > 1

    def strands(self) -> tuple[Strand, ...]:
        """Return the empty strands: one for each endpoint and expected certificate."""
        confidence = self.world.config.confidence
        if not self.target.expected:
            return tuple(
                Strand(one, None, Need.STAPLE, False, (), None, confidence) for one in self.target.endpoints
            )
        return tuple(
            Strand(one, expected.key_type, expected.need, expected.must_staple, (), None, confidence)
            for one in self.target.endpoints
            for expected in self.target.expected
        )

    def look(
        self, strands: Sequence[Strand], each: int, versions: Sequence[TlsVersion | None]
    ) -> tuple[Strand, ...]:
        """Make `each` handshakes for every strand, and one for each of `versions`; return them in strands."""
        workers = frozenset(self.target.workers())
        asks: list[Ask] = []
        owner: list[int] = []
        for index, strand in enumerate(strands):
            pin = strand.key_type if self.several else None
            for tls in (*versions, *(None for _ in range(each))):
                asks.append(Ask(strand.endpoint, tls, pin))
                owner.append(index)
        timeout = self.world.config.handshake_timeout
        who: Callable[[Sequence[SocketPair]], Sequence[int | None]] | None = None
        if workers:
            # Workers on their way out may still have answered; they hold the socket all the same.
            who = self._owners
        seen = observe(asks, Limits(timeout, timeout), now=self.world.clock.now, owners=who)
        current = frozenset(self.target.workers())
        added: list[list[Sighting]] = [[] for _ in strands]
        for index, observation in zip(owner, seen, strict=True):
            if observation.ask.tls is not None and observation.fault is HandshakeFault.ALERT:
                continue  # the server does not offer this version; the unpinned handshakes tell the rest
            added[index].append(self._sight(strands[index], observation))
        return tuple(
            self._fitted(replace(strand, sightings=(*strand.sightings, *new), workers=current or None))
            for strand, new in zip(strands, added, strict=True)
        )

    def _owners(self, pairs: Sequence[SocketPair]) -> Sequence[int | None]:
        return host.owners(pairs, tuple(self.target.workers()))

    def _fitted(self, strand: Strand) -> Strand:
        """Without an expectation the served certificate itself says what it needs."""
        last = strand.last
        if self.target.expected or last is None or last.leaf is None:
            return strand
        need = Need.STAPLE if last.leaf.ocsp_urls else Need.NOT_APPLICABLE
        return replace(strand, need=need, must_staple=last.leaf.must_staple, key_type=last.leaf.key_type)

    def _sight(self, strand: Strand, observation: Observation) -> Sighting:
        if observation.fault is not None or not observation.chain:
            return Sighting(observation, Served.NOTHING)
        certificates = [x509.load_der_x509_certificate(one) for one in observation.chain]
        leaf, facts = certificates[0], leaf_facts(certificates[0])
        expected = next((one for one in self.target.expected if one.key_type is strand.key_type), None)
        if expected is not None and expected.sha256 != facts.sha256:
            return Sighting(observation, Served.OTHER, facts)
        path = self.paths.get(observation.chain)
        if path is None:
            path = verify_path(leaf, certificates[1:], self.world.anchors, self.world.clock.now())
            self.paths[observation.chain] = path
        findings = _chain_findings(strand.endpoint, leaf, path)
        issuer = (
            path.certificates[1] if len(path.certificates) > 1 else (expected.issuer if expected else None)
        )
        if issuer is None and len(certificates) > 1:
            issuer = certificates[1]
        judgement = None
        if observation.staple is not None and issuer is not None:
            judgement = ocsp.judge(observation.staple, leaf, issuer, self.world.clock.now())
        return Sighting(observation, Served.EXPECTED, facts, judgement, findings)


def _chain_findings(endpoint: Endpoint, leaf: x509.Certificate, path: TrustPath) -> tuple[Finding, ...]:
    found = []
    where = str(endpoint)
    if not path.certificates:
        incomplete = "unable to get" in path.error and "issuer" in path.error
        code = Code.SERVED_CHAIN_INCOMPLETE if incomplete else Code.SERVED_NOT_TRUSTED
        found.append(find(code, where, f"the chain that {where} serves leads to no anchor: {path.error}"))
    if endpoint.server_name and matches_name(leaf, endpoint.server_name) is NameMatch.DIFFERS:
        found.append(find(Code.SERVED_NAME_MISMATCH, where, f"{where} serves a certificate for other names"))
    return tuple(found)


def prove(world: World, target: Target, timeout: float, stuck: Callable[[], None] | None = None) -> Proof:
    """Poll until settled, or the budget or all hope is spent; `stuck` is called once when nothing moves."""
    prober = Prober(world, target)
    strands = prober.strands()
    begun = world.clock.monotonic()
    timeout = timeout if strands else 0.0  # with nowhere to look, waiting shows nothing
    moved, score, interval = begun, -1.0, world.config.prove_interval
    versions: tuple[TlsVersion, ...] = (TlsVersion.TLS1_2, TlsVersion.TLS1_3)
    nudged = stuck is None
    quiet = world.config.prove_quiet
    each, since = 0, 0
    while True:
        # nginx without reuseport stays on one worker for 16 accepts; a large burst reaches the others sooner.
        workers = len(target.workers())
        enough = 16 * workers + 1
        each = max(4, 2 * workers) if since == 0 else min(2 * each, max(8, enough))
        strands = prober.look(strands, each, versions)
        versions = ()
        at = world.clock.monotonic()
        since += each
        reached = sum(_score(strand) for strand in strands)
        if reached > score:
            moved, score, interval, since = at, reached, world.config.prove_interval, 0
        idle = at - moved if since >= enough else 0.0
        decision = settle(strands, Patience(at - begun, idle, timeout, quiet))
        if decision is not Decision.WAIT:
            break
        if (
            not nudged
            and stuck is not None
            and idle > quiet / 3
            and any(strand.starved for strand in strands)
        ):
            nudged = True
            stuck()
            moved, since = world.clock.monotonic(), 0
        world.clock.wait(min(interval, max(0.0, timeout - (at - begun))))
        interval = min(interval * world.config.prove_backoff, world.config.prove_interval_max)
    findings = unique(found for strand in strands for found in strand_findings(strand))
    return Proof(decision, strands, findings, world.clock.monotonic() - begun)


def _score(strand: Strand) -> float:
    """How much of what is wanted was seen: it only grows while the poll gets on."""
    if strand.workers:
        return float(sum(1 for one in strand.latest_by_worker.values() if strand.good(one)))
    return float(min(strand.run, 1000))


def look_once(world: World, target: Target) -> tuple[Strand, ...]:
    """Make one handshake for each strand: what is served at this moment."""
    prober = Prober(world, target)
    return prober.look(prober.strands(), 1, ())
