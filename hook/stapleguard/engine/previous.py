"""The generation to go back to: whether it is whole and fit, and what would prove it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from stapleguard import ocsp
from stapleguard.diagnosis import Need, Previous
from stapleguard.disk import BrokenGeneration, Generation
from stapleguard.engine.proof import Expected, Target
from stapleguard.engine.survey import Survey
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding, find
from stapleguard.material import leaf_facts


@dataclass(frozen=True, slots=True)
class Revival:
    """What is known of the previous generation, and what to look for when it serves again."""

    previous: Previous | None
    target: Target


def expectations(generation: Generation) -> tuple[tuple[Expected, x509.Certificate], ...]:
    """Read from its files what a generation must show on the wire."""
    read: list[tuple[Expected, x509.Certificate]] = []
    for name in sorted(generation.files):
        if not (name.startswith("cert") and name.endswith(".pem")):
            continue
        suffix = name.removeprefix("cert").removesuffix(".pem")
        leaf = x509.load_pem_x509_certificate(generation.files[name])
        issuer_pem = generation.files.get(f"issuer{suffix}.pem", b"")
        issuer = x509.load_pem_x509_certificate(issuer_pem) if issuer_pem else None
        facts = leaf_facts(leaf)
        need = Need.STAPLE if facts.ocsp_urls else Need.NOT_APPLICABLE
        read.append((Expected(facts.sha256, facts.key_type, issuer, need, facts.must_staple), leaf))
    return tuple(read)


def revive(world: World, name: str, identity: str, found: Survey) -> Revival:
    """Look at the generation `identity`: what can be told of it before it is needed."""
    if not identity:
        return Revival(None, Target(found.endpoints, (), found.workers))
    try:
        generation = world.state.load(name, identity)
        read = expectations(generation)
    except (BrokenGeneration, ValueError):
        return Revival(None, Target(found.endpoints, (), found.workers))
    faults: list[Finding] = []
    until = None
    now = world.clock.now()
    expected, leaf = read[0]
    der = generation.files.get("ocsp.der")
    if der is not None and expected.issuer is not None:
        judgement = ocsp.judge(der, leaf, expected.issuer, now)
        if judgement.acceptance is ocsp.Acceptance.ACCEPTED:
            until = judgement.next_update
        else:
            faults.append(
                find(Code.SERVER_STAPLE_FILE_BAD, identity, "its staple file is not acceptable any more")
            )
    previous = Previous(leaf_facts(leaf), served_before=True, staple_until=until, faults=tuple(faults))
    return Revival(previous, Target(found.endpoints, tuple(one for one, _ in read), found.workers))
