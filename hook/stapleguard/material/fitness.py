"""Whether material is fit to reach a server, with the path that OpenSSL found for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from cryptography import x509

from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.material.certificate import (
    NameMatch,
    dn,
    extensions_problem,
    issued,
    label,
    matches_name,
)
from stapleguard.material.files import Material, issuer_missing, missing_issuer
from stapleguard.model import Json, Severity, escape

_SKEW: Final = timedelta(minutes=5)
_NO_ANCHOR: Final = " and no anchor of the configured store"


@dataclass(frozen=True, slots=True)
class TrustPath:
    """What OpenSSL built from leaf, chain and store: leaf ... anchor, or nothing and its words why."""

    certificates: tuple[x509.Certificate, ...]
    error: str = ""

    @property
    def anchor(self) -> x509.Certificate | None:
        """The trusted end of the path; None when there is no path."""
        return self.certificates[-1] if self.certificates else None


def gate(material: Material, path: TrustPath, names: Sequence[str], now: datetime) -> tuple[Finding, ...]:
    """Judge whether the material may reach a server; empty when it may, first the first thing to mend.

    `path` is what OpenSSL found for leaf and chain in the configured store at `now` (UTC), `names`
    what the endpoints expect (DNS names in either form, wildcards, IP literals). A notBefore may lie
    5 minutes ahead; notAfter has no grace (RFC 5280 section 4.1.2.5). Only critical findings refuse.
    """
    no_issuer = _issuer_there(material, path)
    findings = [
        *_validity(material.leaf, material.paths["cert"], now),
        *no_issuer,
        *_intermediates_valid(material, path, now),
        *(() if no_issuer else _links(material)),
    ]
    # OpenSSL fails for the same reason when one of these stands; saying it twice would mislead.
    if not path.certificates and not criticals(findings):
        findings.append(_no_anchor(material, path))
    findings.extend(_names_covered(material, names))
    findings.extend(_extensions_fit(material))
    return tuple(findings)


def _validity(
    certificate: x509.Certificate, file: str, now: datetime, severity: Severity | None = None
) -> tuple[Finding, ...]:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    evidence: dict[str, Json] = {
        "certificate": label(certificate),
        "not_before": _rfc3339(start),
        "not_after": _rfc3339(end),
        "now": _rfc3339(now),
    }
    subject = f"{label(certificate)} in {file}"
    if start - now > _SKEW:
        message = f"{subject} is valid only from {_rfc3339(start)}; it is {_rfc3339(now)}"
        return (find(Code.MATERIAL_NOT_YET_VALID, file, message, severity=severity, evidence=evidence),)
    if now > end:
        message = f"{subject} expired at {_rfc3339(end)}; it is {_rfc3339(now)}"
        return (find(Code.MATERIAL_EXPIRED, file, message, severity=severity, evidence=evidence),)
    return ()


def _issuer_there(material: Material, path: TrustPath) -> tuple[Finding, ...]:
    # An anchor that signed the leaf itself is no intermediate, and servers need not send it.
    if material.issuer is not None or (path.anchor is not None and issued(material.leaf, path.anchor)):
        return ()
    return (issuer_missing(material.leaf, material.paths["chain"], material.chain, store=_NO_ANCHOR),)


def _intermediates_valid(material: Material, path: TrustPath, now: datetime) -> Iterator[Finding]:
    # An expired cross-sign beside a path that does not need it breaks old clients only: a warning.
    for certificate in material.chain:
        needed = not path.certificates or certificate in path.certificates
        severity = None if needed else Severity.WARNING
        yield from _validity(certificate, material.paths["chain"], now, severity)


def _links(material: Material) -> Iterator[Finding]:
    file = material.paths["chain"]
    for child, parent in pairwise((material.leaf, *material.chain)):
        if not issued(child, parent):
            message = f"in {file}, {label(child)} is followed by {label(parent)}, which did not issue it"
            evidence: dict[str, Json] = {
                "file": file,
                "found": [label(certificate) for certificate in material.chain],
                "issuer": escape(dn(child, "issuer")),
            }
            yield find(Code.MATERIAL_CHAIN_ORDER, file, message, evidence=evidence)
            return


def _no_anchor(material: Material, path: TrustPath) -> Finding:
    file = material.paths["chain"]
    top = missing_issuer(material) or material.leaf
    words = escape(path.error)
    if "unable to get" in path.error and "issuer" in path.error:
        return issuer_missing(top, file, material.chain, store=_NO_ANCHOR, extra={"openssl": words})
    return find(
        Code.MATERIAL_CHAIN_INCOMPLETE,
        file,
        f"the chain in {file} leads to no anchor of the configured store: {words or 'no reason given'}",
        evidence={"file": file, "top": label(top), "issuer": escape(dn(top, "issuer")), "openssl": words},
    )


def _names_covered(material: Material, names: Sequence[str]) -> tuple[Finding, ...]:
    leaf, file = material.leaf, material.paths["cert"]
    missing = [escape(name) for name in names if matches_name(leaf, name) is NameMatch.DIFFERS]
    if not missing:
        return ()
    has = material.facts.names[:100]
    shown = ", ".join(has[:10]) + (f" and {len(material.facts.names) - 10} more" if len(has) > 10 else "")
    message = f"the leaf in {file} does not cover {', '.join(missing)}; it has {shown or 'no names'}"
    return (find(Code.MATERIAL_NAME_MISMATCH, file, message, evidence={"wanted": missing, "has": list(has)}),)


def _extensions_fit(material: Material) -> Iterator[Finding]:
    facts, file = material.facts, material.paths["cert"]
    if facts.must_staple and not facts.ocsp_urls:
        message = (
            f"the leaf in {file} demands a staple (TLS feature status_request, RFC 7633) but names no OCSP"
            " responder, so the demand can never be met"
        )
        yield find(
            Code.STAPLE_MUST_STAPLE_UNMET, file, message, evidence={"must_staple": True, "ocsp_urls": []}
        )
    problem = extensions_problem(material.leaf)
    if problem:
        message = (
            f"the extensions of the leaf in {file} cannot be decoded, so its names, its OCSP responder and"
            " a demand for a staple count as absent"
        )
        yield find(
            Code.MATERIAL_UNREADABLE,
            file,
            message,
            severity=Severity.WARNING,
            evidence={"file": file, "problem": problem},
        )


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
