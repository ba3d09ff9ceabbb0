"""`doctor`: look, gather, infer; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cryptography import x509

from stapleguard import diagnosis, material
from stapleguard.diagnosis import MISSING, Result, Strand
from stapleguard.diagnosis.facts import Facts, Symptom
from stapleguard.diagnosis.inference import infer
from stapleguard.engine import bedside, intake
from stapleguard.engine.bystanders import programs
from stapleguard.engine.evidence import Case, cases, facts_of
from stapleguard.engine.look import check_place, hurried
from stapleguard.engine.proof import Target, prove
from stapleguard.engine.survey import survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.inventory import Place
from stapleguard.model import Endpoint, Json, Severity, Verdict
from stapleguard.servers import Instance
from stapleguard.wire.fetch import fetch_issuer
from stapleguard.wire.line import is_local
from stapleguard.wire.trust import verify_path

_AGAIN_SECONDS: Final = 4.0


def doctor_place(world: World, place: Place, timeout: float) -> Result:
    """Find out what is wrong at one host and port; what listens there is found, if it is on this host."""
    world.say(f"handshakes with {place}")
    looked = check_place(world, place, timeout)
    strands = looked.strands
    endpoints = [one.endpoint for one in strands]
    local = next((one for one in endpoints if is_local(one.address)), None)
    who = bedside.owner(world, local) if local is not None else bedside.Owner(None)
    program = next(iter(programs(place.port)), None) if local is not None else None
    if who.instance is not None:
        world.say(f"{who.instance.kind} {who.instance.version}, {who.instance.config}, listens there")
    elif program is not None:
        world.say(f"{program.name} listens there, which is only looked at: {program.advice}")
    leaf, issuer = _certificate(world, strands)
    if who.instance is not None and local is not None and (leaf is None or issuer is None):
        leaf, issuer = _on_disk(world, who.instance, local, leaf)
    asked = f" --sni {place.server_name}" if place.server_name else ""
    subject = f"{place.address}{asked}"
    only_seen = program if who.instance is None else None
    case = Case(subject, leaf, issuer, strands, who.instance, local, only_seen, who.unseen)
    codes = _OF_THE_PLACE | (_OF_A_BYSTANDER if only_seen is not None else frozenset())
    more = tuple(one for one in looked.findings if one.code in codes)
    return _concluded(world, case, more, {})


def _on_disk(
    world: World, instance: Instance, local: Endpoint, leaf: x509.Certificate | None
) -> tuple[x509.Certificate | None, x509.Certificate | None]:
    """Take from the server's files what the handshakes did not show."""
    block, _ = bedside.chart(instance, local, leaf)
    if block is None:
        return leaf, None
    sent = bedside.certificates(block.certificate.value)
    leaf = leaf or next(iter(sent), None)
    known = [*sent[1:], *bedside.certificates(block.chain.value), *bedside.certificates(block.trusted.value)]
    return leaf, _issuer(world, leaf, known) if leaf is not None else None


_OF_A_BYSTANDER: Final = frozenset({Code.SERVER_UNSUPPORTED, Code.SERVER_STAPLE_FILE_BAD})
_OF_THE_PLACE: Final = frozenset({Code.DNS_NAME_NOT_FOUND, Code.SERVED_NODE_DIFFERS})


def doctor_lineage(world: World, name: str, sources: Sequence[str], timeout: float) -> Result:
    """Find out what is wrong with a deployed or configured lineage, wherever it is served."""
    certificates, faults = intake.take_standing(world, name, sources)
    found = survey(world, name, sources, intake.names_of(certificates))
    extra: dict[str, Json] = {"lineage": name, "mode": found.mode.value}
    if not found.endpoints:
        nowhere = find(Code.SERVED_UNREACHABLE, name, f"no web server of this host is known to serve {name}")
        return Result("doctor", Verdict.INCONCLUSIVE, nowhere.code, (nowhere, *faults), (), extra)
    world.say(f"handshakes with {', '.join(dict.fromkeys(map(str, found.endpoints)))}")
    target = Target(found.endpoints, tuple(one.expected for one in certificates))
    proof = prove(hurried(world), target, timeout)
    cases_of = [case for one in certificates or (None,) for case in cases(name, found, one, proof.strands)]
    return together([_concluded(world, case, faults, extra) for case in cases_of])


def together(results: Sequence[Result]) -> Result:
    """Make one result of several: the worst of them, with what all of them found."""
    worst = max(results, key=lambda one: (one.verdict is Verdict.DEGRADED, one.status))
    findings = diagnosis.unique([one for each in (worst, *results) for one in each.findings])
    strands = tuple(dict.fromkeys(strand for each in results for strand in each.strands))
    return replace(worst, findings=findings, strands=strands)


def _certificate(
    world: World, strands: Sequence[Strand]
) -> tuple[x509.Certificate | None, x509.Certificate | None]:
    for strand in strands:
        last = strand.last
        if last is None or not last.observation.chain:
            continue
        sent = [x509.load_der_x509_certificate(one) for one in last.observation.chain]
        return sent[0], _issuer(world, sent[0], sent[1:])
    return None, None


def _issuer(
    world: World, leaf: x509.Certificate, known: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    """Find who signed it: on a verified path, among what was sent, among the anchors, or where it says."""
    path = verify_path(leaf, known, world.anchors, world.clock.now())
    if len(path.certificates) > 1:
        return path.certificates[1]
    near = (*known, *(one for one in world.anchors.certificates if one.subject == leaf.issuer))
    for one in near:
        if material.issued(leaf, one):
            return one
    urls = material.leaf_facts(leaf).ca_issuers
    body = fetch_issuer(urls[0], world.fetch_policy).body if urls else None
    return next((one for one in intake.read_issuers(body) if material.issued(leaf, one)), None)


def _concluded(world: World, case: Case, more: Sequence[Finding], extra: dict[str, Json]) -> Result:
    world.say("the configuration, the resolvers, every address of the responder, the log")
    facts = facts_of(world, case)
    found = infer(facts)
    lasting = [one for one in found if one.critical and one not in facts.handshakes]
    comes = any(door.reply.code is None for door in facts.doors)
    nothing = case.program is None and not lasting
    unexplained = nothing or (comes and all(one.code is Code.RESPONDER_SLOW for one in lasting))
    if facts.symptom in (Symptom.ABSENT, Symptom.PARTIAL) and unexplained and case.endpoint is not None:
        # It may have come while we looked: a slow responder, a worker that was still cold.
        proof = prove(hurried(world), Target((case.endpoint,)), _AGAIN_SECONDS)
        if not any(one.code in MISSING or one.critical for one in proof.findings):
            world.say("the staple came meanwhile", Tone.GOOD)
            case = replace(case, strands=proof.strands)
            facts = replace(facts, symptom=Symptom.GOOD, handshakes=proof.findings)
            found = infer(facts)
    findings = diagnosis.unique((*found, *more))
    verdict, findings = _verdict(facts, findings)
    cause = diagnosis.cause_of(findings) if verdict in (Verdict.DEGRADED, Verdict.INCONCLUSIVE) else None
    ranked = sorted(findings, key=lambda one: (one.code is not cause, _WEIGHT[one.severity]))
    return Result("doctor", verdict, cause, tuple(ranked), case.strands, {**extra, **_about(facts)})


_WEIGHT: Final = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


def _verdict(facts: Facts, findings: tuple[Finding, ...]) -> tuple[Verdict, tuple[Finding, ...]]:
    if facts.symptom is Symptom.UNSEEN and facts.server is None:
        return Verdict.INCONCLUSIVE, findings
    wrong = criticals(findings) or any(
        one.code in MISSING or (one.code is Code.HOST_CLOCK_WRONG) for one in findings
    )
    if wrong:
        return Verdict.DEGRADED, findings
    if facts.symptom is Symptom.NOT_APPLICABLE:
        text = "the certificate names no OCSP responder, so no staple is expected"
        note = find(Code.STAPLE_NOT_APPLICABLE, facts.subject, text, severity=Severity.INFO)
        return Verdict.NOT_APPLICABLE, (*findings, note)
    return Verdict.VERIFIED, findings


def _about(facts: Facts) -> dict[str, Json]:
    """What only a diagnosis has: what was asked, and what could not be looked at."""
    server = facts.server
    return {
        "symptom": facts.symptom.value,
        "verify": f"stapleguard doctor {facts.subject}",
        "server": None
        if server is None
        else {
            "kind": server.kind,
            "version": server.version,
            "configuration": server.config,
            "running": server.running,
            "block": server.block.where if server.block else None,
        },
        "responders": [
            {
                "url": door.url,
                "address": door.where,
                "proxy": door.proxy or None,
                "named_by": [one or "the system" for one in door.named_by],
                "replies": [
                    {
                        "method": one.method,
                        "code": one.code.value if one.code else None,
                        "said": one.text,
                        "seconds": round(one.seconds, 3),
                    }
                    for one in door.replies
                ],
            }
            for door in facts.doors
        ],
        "unseen": [{"what": one.what, "why": one.why, "takes": one.takes} for one in facts.unseen],
    }
