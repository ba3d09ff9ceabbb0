"""What a generation holds: its certificates, what each must show on the wire, and its staple files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from stapleguard import ocsp
from stapleguard.diagnosis import Need
from stapleguard.disk import Generation
from stapleguard.engine.proof import Expected
from stapleguard.freshness import Life
from stapleguard.material import leaf_facts


def staple_file(suffix: str) -> str:
    """Name the staple file of the certificate whose files have this suffix."""
    return f"ocsp{suffix}.der"


@dataclass(frozen=True, slots=True)
class Member:
    """One certificate of a generation; `suffix` tells its files apart from the first one's ('')."""

    suffix: str
    expected: Expected
    leaf: x509.Certificate


@dataclass(frozen=True, slots=True)
class Staple:
    """The staple file of one certificate, as the judge sees it now."""

    member: Member
    der: bytes
    judgement: ocsp.Judgement

    @property
    def life(self) -> Life | None:
        """None when it is not acceptable (any more)."""
        judged = self.judgement
        if judged.acceptance is not ocsp.Acceptance.ACCEPTED or judged.this_update is None:
            return None
        return Life.of(judged.this_update, judged.next_update)


def members(generation: Generation) -> tuple[Member, ...]:
    """Read the certificates, the first one first; ValueError where one cannot be read or there is none."""
    names = (one for one in generation.files if one.startswith("cert") and one.endswith(".pem"))
    suffixes = sorted(one.removeprefix("cert").removesuffix(".pem") for one in names)
    if not suffixes:
        raise ValueError("no certificate")
    return tuple(_member(generation, suffix) for suffix in suffixes)


def _member(generation: Generation, suffix: str) -> Member:
    leaf = x509.load_pem_x509_certificate(generation.files[f"cert{suffix}.pem"])
    issuer_pem = generation.files.get(f"issuer{suffix}.pem", b"")
    issuer = x509.load_pem_x509_certificate(issuer_pem) if issuer_pem else None
    facts = leaf_facts(leaf)
    need = Need.STAPLE if facts.ocsp_urls else Need.NOT_APPLICABLE
    return Member(suffix, Expected(facts.sha256, facts.key_type, issuer, need, facts.must_staple), leaf)


def staples(generation: Generation, now: datetime) -> tuple[Staple, ...]:
    """Judge the staple files; one whose issuer is not known is left out. Raises as `members` does."""
    found: list[Staple] = []
    for one in members(generation):
        der = generation.files.get(staple_file(one.suffix))
        if der is not None and one.expected.issuer is not None:
            found.append(Staple(one, der, ocsp.judge(der, one.leaf, one.expected.issuer, now)))
    return tuple(found)
