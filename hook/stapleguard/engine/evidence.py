"""Why is a staple missing? Everything that can be looked at from here, made into facts, and inferred from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography import x509

from stapleguard import material
from stapleguard.diagnosis import Need, Strand, strand_findings
from stapleguard.diagnosis.facts import Facts, Server, Symptom, Unseen
from stapleguard.diagnosis.inference import infer
from stapleguard.engine import bedside, doors
from stapleguard.engine.intake import Certificate
from stapleguard.engine.survey import Survey
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding
from stapleguard.model import Endpoint
from stapleguard.servers import Instance, nginx, nginx_stapling

_MISSING: Final = frozenset({Code.STAPLE_ABSENT, Code.STAPLE_MUST_STAPLE_UNMET})
_URLS: Final = 3
_TAIL: Final = 65536
_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One certificate at one server: where it was looked at, and what is known of it."""

    subject: str
    leaf: x509.Certificate | None
    issuer: x509.Certificate | None
    strands: tuple[Strand, ...]
    instance: Instance | None
    endpoint: Endpoint | None


def gather(world: World, found: Survey, certificates: Sequence[Certificate]) -> list[Finding]:
    """Find out why what was just proved to be missing is missing; ranked by `diagnosis.cause_of`."""
    findings: list[Finding] = []
    for one in certificates:
        if one.expected.need is not Need.STAPLE:
            continue
        endpoint = found.endpoints[0] if found.endpoints else None
        served = (use.instance for use in found.uses if use.running and use.instance.kind == nginx.KIND)
        instance = next(served, None)
        case = Case(str(endpoint or "it"), one.material.leaf, one.issuer, (), instance, endpoint)
        findings += infer(facts_of(world, case))
    if any(one.expected.need is Need.STAPLE for one in certificates):
        findings += _other_servers(world, found)
    return findings


def why(
    world: World, certificate: Certificate, strands: Sequence[Strand], instance: Instance
) -> tuple[Finding, ...]:
    """Find out why one certificate is not stapled by one running server that was just looked at."""
    endpoint = strands[0].endpoint
    known = instance if instance.kind == nginx.KIND else None
    case = Case(str(endpoint), certificate.material.leaf, certificate.issuer, tuple(strands), known, endpoint)
    return infer(facts_of(world, case))


def _other_servers(world: World, found: Survey) -> list[Finding]:
    """Read what servers other than nginx say by themselves, in their test and in their log."""
    findings: list[Finding] = []
    for use in found.uses:
        if use.instance.kind == nginx.KIND:
            continue
        findings += use.server.log_findings(use.server.test(use.instance, world.config.test_timeout).text)
        log = use.server.error_log(use.instance)
        if log:
            lines = [line for line in _tail(log).splitlines() if str(world.state.root) in line]
            findings += use.server.log_findings("\n".join(lines[-_LINES:]))
    return findings


def _tail(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


def facts_of(world: World, case: Case) -> Facts:
    """Look at everything, side by side."""
    unseen: list[Unseen] = []
    leaf = case.leaf
    urls = material.leaf_facts(leaf).ocsp_urls[:_URLS] if leaf is not None else ()
    block = bedside.block(case.instance, case.endpoint) if case.instance and case.endpoint else None
    asked = (block.responder.value,) if block and block.responder.value else urls
    resolvers = nginx_stapling.resolvers(block) if block else ()
    server: Server | None = None

    def way() -> doors.Way:
        if leaf is None or not asked:
            return doors.Way((), (), ())
        return doors.way(world, asked, leaf, case.issuer, resolvers)

    def side() -> bedside.Bedside | None:
        if case.instance is None:
            return None
        return bedside.look_at(world, case.instance, case.endpoint, leaf, case.issuer)

    found, seen = _both(way, side)
    if seen is not None:
        server, unseen = seen.server, [*unseen, *seen.unseen]
    if leaf is not None and urls and case.issuer is None:
        unseen.append(
            Unseen(
                "the responder's answer", "the issuer is not known, so no question can be asked", "--ca-file"
            )
        )
    symptom = symptom_of(case.strands)
    if server is not None and case.instance is not None and symptom is not Symptom.GOOD:
        place = bedside.place(case.instance, found.doors, found.names)
        if isinstance(place, Unseen):
            unseen.append(place)
        elif place is not None:
            server = replace(server, place=place)
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
