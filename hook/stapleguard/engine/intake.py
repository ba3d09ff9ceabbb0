"""From an ACME client's files to what may be published: read, complete, gate, and the responder's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from stapleguard import material, ocsp
from stapleguard.diagnosis import Need
from stapleguard.disk import read_lineage
from stapleguard.engine.proof import Expected
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.material import Material, TrustPath
from stapleguard.model import SourceFiles, escape
from stapleguard.wire.fetch import fetch_issuer, ocsp_exchange
from stapleguard.wire.trust import verify_path


@dataclass(frozen=True, slots=True)
class Certificate:
    """One gated certificate of a lineage; `suffix` tells its files apart from the first one's."""

    material: Material
    path: TrustPath
    suffix: str

    @property
    def issuer(self) -> x509.Certificate | None:
        """The certificate that signed the leaf, on the verified path."""
        return self.path.certificates[1] if len(self.path.certificates) > 1 else self.material.issuer

    @property
    def expected(self) -> Expected:
        """What must be seen on the wire."""
        facts = self.material.facts
        need = Need.STAPLE if facts.ocsp_urls else Need.NOT_APPLICABLE
        return Expected(facts.sha256, facts.key_type, self.issuer, need, facts.must_staple)

    def files(self) -> dict[str, bytes]:
        """The files of a generation that come from this certificate."""
        return material.assemble(self.material, self.path.anchor, self.suffix)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a responder said: the DER where the judge accepted it, and everything found on the way."""

    der: bytes | None
    judgement: ocsp.Judgement | None
    findings: tuple[Finding, ...]


def take_in(
    world: World, sources: Sequence[str], names: Sequence[str] = ()
) -> tuple[tuple[Certificate, ...], tuple[Finding, ...]]:
    """Read and gate every source: the certificates read, the findings (a critical one refuses)."""
    return _gated(world, [read_lineage(Path(one)) for one in sources], names, ", ".join(sources))


def take_live(
    world: World, name: str, names: Sequence[str] = ()
) -> tuple[tuple[Certificate, ...], tuple[Finding, ...]]:
    """Read and gate every certificate of the live generation, as `take_in` does."""
    live = world.state.live_path(name)
    suffixes = sorted(one.name.removeprefix("cert").removesuffix(".pem") for one in live.glob("cert*.pem"))
    return _gated(world, [read_lineage(live, one) for one in suffixes or [""]], names, str(live))


def take_standing(
    world: World, name: str, sources: Sequence[str]
) -> tuple[tuple[Certificate, ...], tuple[Finding, ...]]:
    """Read and gate what is deployed; what the ACME client has, only where nothing is deployed yet."""
    names = world.config.lineage(name).names
    return take_live(world, name, names) if world.state.live(name) else take_in(world, sources, names)


def names_of(certificates: Sequence[Certificate]) -> tuple[str, ...]:
    """List the names that they are for, each once."""
    return tuple(dict.fromkeys(one for each in certificates for one in each.material.facts.names))


def _gated(
    world: World, lineages: Sequence[SourceFiles | Finding], names: Sequence[str], where: str
) -> tuple[tuple[Certificate, ...], tuple[Finding, ...]]:
    certificates: list[Certificate] = []
    findings: list[Finding] = []
    for files in lineages:
        read = (files,) if isinstance(files, Finding) else material.read(files)
        if isinstance(read, tuple):
            findings += read
            continue
        read, path, said = _complete(world, read)
        findings += said
        findings += material.gate(read, path, names, world.clock.now())
        suffix = f".{read.facts.key_type.value}" if certificates else ""
        certificates.append(Certificate(read, path, suffix))
    if len({one.material.facts.key_type for one in certificates}) < len(certificates):
        text = "two sources of one lineage have the same key type; a server can hold one certificate of each"
        findings.append(find(Code.MATERIAL_UNREADABLE, escape(where), text))
    return tuple(certificates), tuple(findings)


def _complete(world: World, read: Material) -> tuple[Material, TrustPath, list[Finding]]:
    """Follow caIssuers (RFC 5280 section 4.2.2.1) where the chain leads to no anchor, at most three links."""
    said: list[Finding] = []
    now = world.clock.now()
    path = verify_path(read.leaf, read.chain, world.anchors, now)
    for _ in range(3):
        lacking = None if path.certificates else material.missing_issuer(read)
        urls = material.leaf_facts(lacking).ca_issuers if lacking is not None else ()
        if lacking is None or not urls:
            break
        fetched = fetch_issuer(urls[0], world.fetch_policy)
        said += fetched.findings
        issuer = next((one for one in read_issuers(fetched.body) if material.issued(lacking, one)), None)
        if issuer is None:
            break
        world.say(f"the chain lacked its issuer; fetched it from {escape(urls[0])}", Tone.WARN)
        read = material.with_chain(read, (*read.chain, issuer) if read.issuer is not None else (issuer,))
        path = verify_path(read.leaf, read.chain, world.anchors, now)
    return read, path, [] if path.certificates else said


def read_issuers(body: bytes | None) -> list[x509.Certificate]:
    """Read DER, PEM or a certs-only PKCS #7; nothing when it is none of them."""
    for read in (_der, x509.load_pem_x509_certificates, pkcs7.load_der_pkcs7_certificates):
        try:
            return read(body or b"")
        except ValueError:
            continue
    return []


def _der(body: bytes) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(body)]


def ask_responder(world: World, certificate: Certificate) -> Answer:
    """Ask each responder that the certificate names until one gives an answer that the judge accepts."""
    issuer = certificate.issuer
    findings: list[Finding] = []
    judgement = None
    if issuer is None:
        return Answer(None, None, ())
    request = ocsp.request(certificate.material.leaf, issuer)
    for url in responders(certificate.material.leaf):
        fetched = ocsp_exchange(url, request, world.fetch_policy)
        findings += fetched.findings
        if fetched.body is None:
            continue
        judgement = ocsp.judge(fetched.body, certificate.material.leaf, issuer, world.clock.now())
        findings += [replace(one, subject=f"{one.subject} from {escape(url)}") for one in judgement.findings]
        if judgement.acceptance is ocsp.Acceptance.ACCEPTED:
            return Answer(fetched.body, judgement, tuple(one for one in findings if not one.critical))
    return Answer(None, judgement, tuple(findings))


def responders(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the URLs that are asked about a certificate: the first three, whatever it names."""
    return material.leaf_facts(leaf).ocsp_urls[:3]


def revoked(answer: Answer) -> bool:
    """Whether an authentic answer says that the certificate was revoked."""
    return any(one.code is Code.OCSP_REVOKED for one in criticals(answer.findings))
