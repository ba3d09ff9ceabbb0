"""Look at places by host and port, one thoroughly or many quickly; nothing is changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, assert_never

from stapleguard import diagnosis
from stapleguard.diagnosis import Decision, Need, Result, Strand, differences, strand_findings
from stapleguard.engine.bystanders import bystanders
from stapleguard.engine.fleet import bug
from stapleguard.engine.prober import KEY_TYPES, Target
from stapleguard.engine.proof import Proof, prove
from stapleguard.engine.sight import Sighter
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, find
from stapleguard.host import accepting
from stapleguard.inventory import Place
from stapleguard.model import Ask, Depth, Endpoint, KeyType, Observation, Severity, Verdict, escape
from stapleguard.wire.handshake import Limits, observe_each
from stapleguard.wire.line import addresses, addresses_of, is_local

_QUIET: Final = 1.5
_NAMES_AT_ONCE: Final = 64


def look(world: World, place: Place, timeout: float, depth: Depth) -> Result:
    """Look at one place within about `timeout` seconds."""
    match depth:
        case Depth.THOROUGH:
            return check_place(world, place, timeout)
        case Depth.QUICK:
            ((_, result),) = check_quickly(world, [place], timeout)
            return result
        case _ as never:
            assert_never(never)


def check_place(world: World, place: Place, timeout: float) -> Result:
    """Look at a place thoroughly: each address, RSA and ECDSA, TLS 1.2 and 1.3, every worker.

    Workers of this host are met one by one; elsewhere as many handshakes are made as the configured
    confidence asks for.
    """
    # A dead peer costs it twice, once for finding out what key types there are.
    each = min(world.config.handshake_timeout, timeout / 4)
    world = replace(world, config=replace(hurried(world).config, handshake_timeout=each))
    found = place.addresses or addresses(place.host, each)
    if not found:
        return _nameless(place)
    workers = accepting(place.port) if any(map(is_local, found)) else tuple
    target = Target(tuple(map(place.at, found)), workers=lambda _: workers())
    kinds = place.key_types or KEY_TYPES
    proof = prove(world, target, timeout, prepare=lambda prober: prober.split_by_key_type(kinds))
    return result_of(world, proof, bystanders(proof.strands))


def check_quickly(
    world: World, places: Iterable[Place], timeout: float | None = None
) -> Iterator[tuple[int, Result]]:
    """Look at any number of places with one handshake for each address, many at once.

    Yields the number of a place and its result, as they come. `timeout` is for all together, in seconds.
    It says what one client saw, and nothing of other workers: that is what `check_place` is for.
    """
    sighter = Sighter(world, ())
    asked: list[tuple[_Pending, Endpoint]] = []
    nameless: deque[_Pending] = deque()

    def asks() -> Iterator[Ask]:
        for pending in _resolved(places, world.config.handshake_timeout):
            if not pending.left:
                nameless.append(pending)
            kinds: Sequence[KeyType | None] = pending.place.key_types or (None,)
            for endpoint in pending.endpoints:
                for kind in kinds:
                    asked.append((pending, endpoint))
                    yield Ask(endpoint, None, kind)

    each = world.config.handshake_timeout
    for index, observation in observe_each(asks(), Limits(each, each, timeout), now=world.clock.now):
        pending, endpoint = asked[index]
        try:
            pending.seen.append((endpoint, _alone(sighter, observation)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are still to be told of
            pending.bug = bug(pending.place, error)
        pending.left -= 1
        if not pending.left:
            yield pending.number, pending.bug or _quick_result(pending)
            pending.seen.clear()
        while nameless:
            one = nameless.popleft()
            yield one.number, _nameless(one.place)
    for one in nameless:
        yield one.number, _nameless(one.place)


@dataclass(slots=True)
class _Pending:
    """A place some of whose addresses are still to be seen."""

    number: int
    place: Place
    endpoints: tuple[Endpoint, ...]
    left: int
    seen: list[tuple[Endpoint, Strand]] = field(default_factory=list)
    bug: Result | None = None


def _resolved(places: Iterable[Place], timeout: float) -> Iterator[_Pending]:
    """Find the addresses of many names at a time, so that no single one is waited for alone."""
    waiting = iter(enumerate(places))
    while batch := list(islice(waiting, _NAMES_AT_ONCE)):
        found = addresses_of([one.host for _, one in batch if not one.addresses], timeout)
        for number, place in batch:
            endpoints = tuple(map(place.at, place.addresses or found[place.host]))
            yield _Pending(number, place, endpoints, len(endpoints) * max(len(place.key_types), 1))


def _alone(sighter: Sighter, observation: Observation) -> Strand:
    """Make the strand of one handshake; nothing is claimed of other workers."""
    endpoint, pinned = observation.ask.endpoint, observation.ask.key_type
    sighting = sighter.sight(observation, None)
    leaf = sighting.leaf
    need = Need.STAPLE if leaf is None or leaf.ocsp_urls else Need.NOT_APPLICABLE
    kind = leaf.key_type if leaf else pinned
    must_staple = leaf.must_staple if leaf else False
    return Strand(endpoint, kind, need, must_staple, (sighting,), None, confidence=0.0)


def _quick_result(pending: _Pending) -> Result:
    strands = tuple(strand for _, strand in sorted(pending.seen, key=lambda one: one[0].address))
    found = [one for strand in strands for one in strand_findings(strand)]
    findings = diagnosis.unique([*found, *differences(strands)])
    verdict = diagnosis.verdict_of(findings, strands)
    settled = verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    return Result("check", verdict, None if settled else diagnosis.cause_of(findings), findings, strands)


def _nameless(place: Place) -> Result:
    missing = find(Code.DNS_NAME_NOT_FOUND, place.authority, f"{escape(place.host)} has no address")
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
