"""Why is a staple missing? Everything that can be looked at from here, made into facts, and inferred from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from stapleguard import material
from stapleguard.diagnosis import Need, Strand, strand_findings
from stapleguard.diagnosis.facts import Block, Facts, Symptom, Unseen
from stapleguard.diagnosis.inference import beside, infer
from stapleguard.diagnosis.observed import Observed
from stapleguard.engine import bedside, doors
from stapleguard.engine.intake import Certificate
from stapleguard.engine.survey import Mode, Survey
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding
from stapleguard.model import Endpoint, Severity
from stapleguard.servers import STAPLERS, Instance

_MISSING: Final = frozenset({Code.STAPLE_ABSENT, Code.STAPLE_MUST_STAPLE_UNMET})
_URLS: Final = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One certificate at one server: where it was looked at, and what is known of it.

    `program` is what listens there, where that is one that is only looked at.
    """

    subject: str
    leaf: x509.Certificate | None
    issuer: x509.Certificate | None
    strands: tuple[Strand, ...]
    instance: Instance | None
    endpoint: Endpoint | None
    program: Observed | None = None
    unseen: tuple[Unseen, ...] = ()


def gather(
    world: World, found: Survey, certificates: Sequence[Certificate], strands: Sequence[Strand]
) -> list[Finding]:
    """Find out why what was just proved to be missing is missing; ranked by `diagnosis.cause_of`.

    What the handshakes showed is among it, with the weight that it has beside the cause.
    """
    findings: list[Finding] = []
    for one in certificates:
        if one.expected.need is not Need.STAPLE:
            continue
        for case in cases(str(found.endpoints[0]) if found.endpoints else "it", found, one, strands):
            if symptom_of(case.strands) is Symptom.GOOD:
                continue
            facts = facts_of(world, case)
            # The proof has told the same with its full weight.
            findings += (replace(told, severity=Severity.WARNING) for told in beside(facts))
            named = infer(facts)
            findings += _without_an_answer(named) if found.mode is Mode.GUARD else named
    return findings


_WARNING: Final = Severity.WARNING
_OF_THE_ANSWER: Final = ("dns.", "net.", "responder.", "ocsp.")


def _without_an_answer(named: Sequence[Finding]) -> list[Finding]:
    """Let a staple file that we would have written stand behind why there was nothing to write."""
    why = {
        one.code for one in named if one.code.value.startswith(_OF_THE_ANSWER) and one.severity is _WARNING
    }
    if not why or all(one.code is not Code.SERVER_STAPLING_DISABLED for one in named):
        return [*named]
    weights = {Code.SERVER_STAPLING_DISABLED: _WARNING, **dict.fromkeys(why, Severity.CRITICAL)}
    return [replace(one, severity=weights.get(one.code, one.severity)) for one in named]


def cases(
    subject: str, found: Survey, certificate: Certificate | None, strands: Sequence[Strand]
) -> Iterator[Case]:
    """Put together what belongs together: one server, where it listens, and what was seen there."""
    kind = certificate.material.facts.key_type if certificate else None
    leaf, issuer = (certificate.material.leaf, certificate.issuer) if certificate else (None, None)
    mine = [one for one in strands if kind is None or one.key_type in (None, kind)]
    for use in found.uses or (None,):
        places = [one for one in found.endpoints if use is not None and use.listens(one)]
        places = places or [*found.endpoints]
        there = tuple(one for one in mine if one.endpoint in places)
        instance = use.instance if use is not None else None
        yield Case(subject, leaf, issuer, there or tuple(mine), instance, next(iter(places), None))


def facts_of(world: World, case: Case) -> Facts:
    """Look at everything, side by side."""
    leaf, instance = case.leaf, case.instance
    urls = material.leaf_facts(leaf).ocsp_urls if leaf is not None else ()
    block, blind = bedside.chart(instance, case.endpoint, leaf) if instance else (None, ())

    def way() -> doors.Way:
        if leaf is None:
            return doors.Way((), (), ())
        return doors.way(_as_the_server(world, block), leaf, case.issuer, _route(instance, block, urls))

    def side() -> bedside.Bedside | None:
        if instance is None:
            return None
        return bedside.look_at(world, instance, block, leaf, case.issuer)

    found, seen = _both(way, side)
    unseen = [*case.unseen, *blind, *(seen.unseen if seen else ())]
    server = seen.server if seen else None
    if case.program is not None:
        server = bedside.bystander(case.program, case.endpoint)
        what = f"the configuration and the log of {case.program.name}"
        unseen.append(Unseen(what, f"it is only looked at: {case.program.advice}", "a look by hand"))
    if leaf is not None and urls and case.issuer is None:
        why = "the issuer is not known, so no question can be asked"
        unseen.append(Unseen("the responder's answer", why, "--ca-file"))
    symptom = symptom_of(case.strands)
    if seen is not None and instance is not None and symptom is not Symptom.GOOD:
        place = bedside.place(instance, found.doors, found.names, block.proxy.value if block else "")
        if isinstance(place, Unseen):
            unseen.append(place)
        elif place is not None:
            server = replace(seen.server, place=place)
    handshakes = tuple(one for strand in case.strands for one in strand_findings(strand))
    return Facts(
        case.subject,
        symptom,
        world.clock.now(),
        urls,
        found.names,
        found.doors,
        server,
        handshakes,
        tuple(unseen),
        found.dates,
    )


def _route(instance: Instance | None, block: Block | None, urls: Sequence[str]) -> doors.Route:
    """How the server would go: to which URLs, by whose addresses, with which request."""
    stapler = STAPLERS.get(instance.kind) if instance else None
    if instance is None or block is None or stapler is None:
        return doors.Route(tuple(urls[:_URLS]))
    asked, resolvers = block.asked(urls)[:_URLS], stapler.resolvers(instance, block)
    return doors.Route(asked, resolvers, stapler.MANNER.method, block.families)


def _as_the_server(world: World, block: Block | None) -> World:
    """Go through the server's own proxy where it has one."""
    if block is None or not block.proxy.value:
        return world
    return replace(world, config=replace(world.config, proxy=block.proxy.value))


def _both(
    way: doors.Job[doors.Way], side: doors.Job[bedside.Bedside | None]
) -> tuple[doors.Way, bedside.Bedside | None]:
    first, second = doors.side_by_side(way, side)
    return first, second


def symptom_of(strands: Sequence[Strand]) -> Symptom:
    """Say in one word what the handshakes showed; without any, a missing staple is why we are here."""
    if not strands:
        return Symptom.ABSENT
    seen = [one for one in strands if one.last is not None and one.last.observation.fault is None]
    if not seen:
        return Symptom.UNSEEN
    if all(one.need is Need.NOT_APPLICABLE for one in seen):
        return Symptom.NOT_APPLICABLE
    codes = {found.code for one in seen for found in strand_findings(one)}
    if Code.SERVER_SERVES_BAD_STAPLE in codes:
        return Symptom.BAD
    if Code.SERVER_WORKER_UNSTAPLED in codes:
        return Symptom.PARTIAL
    return Symptom.ABSENT if codes & _MISSING else Symptom.GOOD
