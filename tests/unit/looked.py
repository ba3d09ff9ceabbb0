"""Results as a check gives them, made by hand: what the renderings are tested with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from stapleguard import diagnosis
from stapleguard.diagnosis import Need, Result, Served, Sighting, Strand
from stapleguard.finding import Code, Finding, find
from stapleguard.inventory import Place
from stapleguard.model import (
    Ask,
    CertStatus,
    Endpoint,
    HandshakeFault,
    KeyType,
    LeafFacts,
    Observation,
    Verdict,
)
from stapleguard.ocsp import Acceptance, Judgement
from stapleguard.report.readings import Reading, readings

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def leaf(
    days: float = 60, *, must_staple: bool = False, subject: str = "CN=www.site.test,O=x", mark: str = "a"
) -> LeafFacts:
    return LeafFacts(
        mark * 64, 4660, subject, "CN=An Issuer\\, Inc.,C=XX", ("www.site.test", "site.test"),
        NOW - 30 * DAY, NOW + days * DAY, KeyType.ECDSA, ("http://ocsp.test/",), (), must_staple,
    )  # fmt: skip


def judged(
    acceptance: Acceptance = Acceptance.ACCEPTED, status: CertStatus | None = CertStatus.GOOD
) -> Judgement:
    return Judgement(status, acceptance, (), NOW - DAY, NOW + 3 * DAY, NOW - DAY, "abc", "d" * 64)


def sighting(endpoint: Endpoint, served: LeafFacts, judgement: Judgement | None) -> Sighting:
    staple = b"staple" if judgement else None
    seen = Observation(Ask(endpoint), NOW, 0.01, "TLSv1.3", (b"leaf", b"issuer"), staple)
    return Sighting(seen, Served.EXPECTED, served, judgement)


def endpoint(host: str = "www.site.test", address: str = "192.0.2.1", port: int = 443) -> Endpoint:
    return Endpoint(host, port, host, address)


def good(
    where: Endpoint | None = None, served: LeafFacts | None = None, judgement: Judgement | None = None
) -> Strand:
    where, served = where or endpoint(), served or leaf()
    seen = tuple(sighting(where, served, judgement or judged()) for _ in range(40))
    return Strand(where, KeyType.ECDSA, Need.STAPLE, served.must_staple, seen)


def bare(where: Endpoint | None = None, served: LeafFacts | None = None) -> Strand:
    where, served = where or endpoint(), served or leaf()
    seen = tuple(sighting(where, served, None) for _ in range(40))
    return Strand(where, KeyType.ECDSA, Need.STAPLE, served.must_staple, seen)


def unreached(where: Endpoint | None = None) -> Strand:
    where = where or endpoint()
    seen = Observation(Ask(where), NOW, 0.01, fault=HandshakeFault.REFUSED, detail="ECONNREFUSED")
    return Strand(where, None, Need.STAPLE, False, (Sighting(seen, Served.NOTHING),))


def result(*strands: Strand, more: tuple[Finding, ...] = ()) -> Result:
    findings = diagnosis.unique(
        (*(one for each in strands for one in diagnosis.strand_findings(each)), *more)
    )
    verdict = diagnosis.verdict_of(findings, strands)
    good_end = verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    return Result("check", verdict, None if good_end else diagnosis.cause_of(findings), findings, strands)


def read(
    *strands: Strand, labels: Mapping[str, str] | None = None, more: tuple[Finding, ...] = ()
) -> tuple[Reading, ...]:
    return readings(result(*strands, more=more), Place("www.site.test", 443, labels=labels or {}))


def hostile() -> Finding:
    text = 'a|b\n"c" \\ \x1b[31m\u202e ' + "x" * 5000
    return find(Code.SERVED_NOT_TRUSTED, "evil\n|", text)
