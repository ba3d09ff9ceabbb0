"""Look at places by host and port, one thoroughly or many quickly; nothing is changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from stapleguard import diagnosis
from stapleguard.diagnosis import Decision, Need, Result, Strand, differences, strand_findings
from stapleguard.engine.prober import Prober, Target
from stapleguard.engine.proof import Proof, prove
from stapleguard.engine.sight import Sighter
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, find
from stapleguard.host import accepting
from stapleguard.model import Ask, Endpoint, Observation, Severity, StartTls, Verdict, escape
from stapleguard.wire.handshake import Limits, observe_each
from stapleguard.wire.line import addresses, addresses_of, is_local

_QUIET: Final = 1.5
_NAMES_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """One name to look at: on every address that it has, or on `addresses` alone.

    `server_name` is asked for instead of the host's own name; '' asks for none, as old clients do.
    """

    host: str
    port: int
    server_name: str | None = None
    addresses: tuple[str, ...] = ()
    starttls: StartTls | None = None

    def at(self, address: str) -> Endpoint:
        """Return the endpoint of one address."""
        name = self.host if self.server_name is None else self.server_name
        return Endpoint(self.host, self.port, name, address, self.starttls)

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{shown}:{self.port}"


def check_place(world: World, place: Place, timeout: float) -> Result:
    """Look at a place thoroughly: each address, RSA and ECDSA, TLS 1.2 and 1.3, every worker.

    Workers of this host are met one by one; elsewhere as many handshakes are made as the configured
    confidence asks for.
    """
    found = place.addresses or addresses(place.host, world.config.handshake_timeout)
    if not found:
        return _nameless(place)
    workers = accepting(place.port) if any(map(is_local, found)) else tuple
    target = Target(tuple(map(place.at, found)), workers=lambda _: workers())
    proof = prove(hurried(world), target, timeout, prepare=Prober.split_by_key_type)
    return result_of(world, proof, ())


def check_quickly(world: World, places: Iterable[Place]) -> Iterator[tuple[Place, Result]]:
    """Look at any number of places with one handshake for each address, many at once; results as they come.

    It says what one client saw, and nothing of other workers: that is what `check_place` is for.
    """
    sighter, config = Sighter(world, ()), world.config
    asked: list[tuple[_Pending, Endpoint]] = []
    nameless: deque[Place] = deque()

    def asks() -> Iterator[Ask]:
        for pending in _resolved(places, config.handshake_timeout):
            if not pending.left:
                nameless.append(pending.place)
            for endpoint in pending.endpoints:
                asked.append((pending, endpoint))
                yield Ask(endpoint)

    limits = Limits(config.handshake_timeout, config.handshake_timeout)
    for index, observation in observe_each(asks(), limits, now=world.clock.now):
        pending, endpoint = asked[index]
        pending.strands[endpoint] = _alone(sighter, observation, config.confidence)
        pending.left -= 1
        if not pending.left:
            yield pending.place, _quick_result(pending)
        while nameless:
            place = nameless.popleft()
            yield place, _nameless(place)
    for place in nameless:
        yield place, _nameless(place)


@dataclass(slots=True)
class _Pending:
    """A place some of whose addresses are still to be seen."""

    place: Place
    endpoints: tuple[Endpoint, ...]
    left: int
    strands: dict[Endpoint, Strand] = field(default_factory=dict)


def _resolved(places: Iterable[Place], timeout: float) -> Iterator[_Pending]:
    """Find the addresses of many names at a time, so that no single one is waited for alone."""
    waiting = iter(places)
    while batch := list(islice(waiting, _NAMES_AT_ONCE)):
        found = addresses_of([one.host for one in batch if not one.addresses], timeout)
        for place in batch:
            endpoints = tuple(map(place.at, place.addresses or found[place.host]))
            yield _Pending(place, endpoints, len(endpoints))


def _alone(sighter: Sighter, observation: Observation, confidence: float) -> Strand:
    sighting = sighter.sight(observation, None)
    leaf = sighting.leaf
    need = Need.STAPLE if leaf is None or leaf.ocsp_urls else Need.NOT_APPLICABLE
    endpoint, kind = observation.ask.endpoint, leaf.key_type if leaf else None
    must_staple = leaf.must_staple if leaf else False
    return Strand(endpoint, kind, need, must_staple, (sighting,), None, confidence)


def _quick_result(pending: _Pending) -> Result:
    strands = tuple(pending.strands[endpoint] for endpoint in pending.endpoints)
    found = [one for strand in strands for one in strand_findings(strand)]
    findings = diagnosis.unique([*found, *differences(strands)])
    verdict = diagnosis.verdict_of(findings, strands)
    settled = verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    return Result("check", verdict, None if settled else diagnosis.cause_of(findings), findings, strands)


def _nameless(place: Place) -> Result:
    missing = find(Code.DNS_NAME_NOT_FOUND, str(place), f"{escape(place.host)} has no address")
    return Result("check", Verdict.INCONCLUSIVE, missing.code, (missing,))


def hurried(world: World) -> World:
    """A look waits less for news than the proof of a renewal, for nothing was just reloaded."""
    return replace(world, config=replace(world.config, prove_quiet=min(world.config.prove_quiet, _QUIET)))


def result_of(world: World, proof: Proof, more: Sequence[Finding]) -> Result:
    """Conclude a look: what the proof showed and what else was found, with the verdict that follows."""
    findings = diagnosis.unique((*proof.findings, *more))
    verdict = diagnosis.verdict_of(findings, proof.strands)
    if verdict is Verdict.VERIFIED and proof.decision is not Decision.SETTLED:
        world.say("good so far, but not every worker was met", Tone.WARN)
        verdict = Verdict.INCONCLUSIVE
    settled = verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    if verdict is Verdict.NOT_APPLICABLE:
        text = "the certificate names no OCSP responder, so no staple is expected"
        findings = (*findings, find(Code.STAPLE_NOT_APPLICABLE, "certificate", text, severity=Severity.INFO))
    return Result(
        "check", verdict, None if settled else diagnosis.cause_of(findings), findings, proof.strands
    )
