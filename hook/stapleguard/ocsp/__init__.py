"""The OCSP client's two pure halves: the question as bytes, and the judge of the answer.

`judge` reads from top to bottom like RFC 6960 sections 3.2 and 4.2: numbered steps, each with its
clause, none of which data can switch off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, assert_never

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from stapleguard.finding import CATALOGUE, Code, Finding, find
from stapleguard.model import CertStatus, Json, Severity
from stapleguard.ocsp.answer import (
    MAX_RESPONSE,
    SHA1,
    Answer,
    Entry,
    Fault,
    basic_response,
    form,
    response_status,
)
from stapleguard.ocsp.signer import (
    Sha1,
    authority_faults,
    cert_id,
    issued_by,
    must_staple,
    named,
    question,
    signature_faults,
    verifies,
)

__all__ = ["MAX_RESPONSE", "SKEW", "Acceptance", "Judgement", "Rules", "Sha1", "judge", "request"]

SKEW: Final = timedelta(minutes=5)
"""How far thisUpdate and producedAt may lie ahead of our clock; nextUpdate gets no grace."""

_FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_INSTANT: Final = timedelta(microseconds=1)
_AGEING: Final = timedelta(hours=12)
_TOO_OLD: Final = timedelta(days=7)
_NEAR: Final = timedelta(hours=8)
_RANK: Final = {CertStatus.GOOD: 0, CertStatus.UNKNOWN: 1, CertStatus.REVOKED: 2}
# Measured on GnuTLS 3.7, curl 7.88 with OpenSSL 3.0, and read in the code and tests of Firefox.
# What was not measured is not claimed.
_CURL: Final = "curl --cert-status"
_BREAKS: Final[Mapping[Code, tuple[str, ...]]] = {
    Code.OCSP_MALFORMED: ("Firefox", _CURL),
    Code.OCSP_MALFORMED_REQUEST: ("Firefox", _CURL),
    Code.OCSP_INTERNAL_ERROR: ("Firefox", _CURL),
    Code.OCSP_TRY_LATER: (_CURL,),
    Code.OCSP_SIG_REQUIRED: ("Firefox", _CURL),
    Code.OCSP_UNAUTHORIZED: ("Firefox", _CURL),
    Code.OCSP_WRONG_CERTIFICATE: ("GnuTLS", _CURL),
    Code.OCSP_BAD_SIGNATURE: ("Firefox", "GnuTLS", _CURL),
    Code.OCSP_UNAUTHORIZED_RESPONDER: ("GnuTLS", _CURL),
    Code.OCSP_CRITICAL_EXTENSION: ("Firefox",),
    Code.OCSP_EXPIRED: ("GnuTLS", _CURL),
    Code.OCSP_NOT_YET_VALID: (_CURL,),
    Code.OCSP_REVOKED: ("Firefox", "GnuTLS", _CURL),
    Code.OCSP_UNKNOWN: ("Firefox", _CURL),
}
# GnuTLS passes over these refusals unless the certificate demands a staple.
_BREAKS_MUST_STAPLE: Final = frozenset({Code.OCSP_TRY_LATER, Code.OCSP_UNAUTHORIZED})
_SAID: Final = 10  # as many findings of one code as help a person; a hostile answer could bring thousands


class Acceptance(Enum):
    """Whether a client that follows every rule would take the response for a proof of "good"."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Rules:
    """Where practice may vary.

    `max_age` is in seconds since thisUpdate; None means 7 days, for responses without nextUpdate only.
    """

    max_age: float | None = None
    sha1: Sha1 = Sha1.REFUSED

    @property
    def limit(self) -> timedelta:
        """How old thisUpdate may be where its age counts."""
        return _TOO_OLD if self.max_age is None else timedelta(seconds=self.max_age)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a response is worth for one certificate at one time.

    `status` is None when no entry is about the certificate, and otherwise what the (worst) entry
    claims, even in a response that was rejected and so proves nothing. `holds_until` is when the same
    bytes may first be worth something else, for no other reason than the time (UTC).
    """

    status: CertStatus | None
    acceptance: Acceptance
    findings: tuple[Finding, ...]
    this_update: datetime | None
    next_update: datetime | None
    produced_at: datetime | None
    responder: str | None
    sha256: str
    holds_until: datetime = _FOREVER

    @property
    def half_life(self) -> datetime | None:
        """When to ask anew: midway to nextUpdate, or half the 12 hours that an answer without it is fresh."""
        if self.this_update is None:
            return None
        if self.next_update is None:
            latest = datetime.max.replace(tzinfo=self.this_update.tzinfo) - _AGEING
            return min(self.this_update, latest) + _AGEING / 2
        return self.this_update + (self.next_update - self.this_update) / 2


def request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Ask about `leaf`: a DER OCSPRequest (RFC 6960 section 4.1).

    A SHA-1 CertID, as nginx and Apache ask and match (RFC 9919 lets the client choose), and no
    nonce, so that caches and pre-produced answers can serve it (RFC 9919; RFC 9654 leaves it optional).
    """
    return question(leaf, issuer, SHA1).public_bytes(Encoding.DER)


def judge(
    der: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime, rules: Rules = Rules()
) -> Judgement:
    """Judge an OCSP response (DER, hostile until proved) about `leaf` at `now` (timezone-aware UTC).

    `issuer` is trusted as it stands. No bytes in `der` raise; each broken rule is a finding.
    RFC 6960 section 3.2 lists the conditions, section 4.2 the forms; RFC 9919 narrows both.
    """
    verdict = _Draft(leaf, hashlib.sha256(der).hexdigest())

    # 1. Form: one OCSPResponse in strict DER and nothing behind it (4.2.1), of a sane size.
    response = form(der)
    if isinstance(response, Fault):
        return verdict.rejected(response)

    # 2. responseStatus: anything but successful carries no answer (4.2.1, 2.3).
    if (fault := response_status(response)) is not None:
        return verdict.rejected(fault)

    # 3. id-pkix-ocsp-basic, version v1, times in the form of RFC 5280 section 4.1.2.5.2 (4.2.1).
    answer = basic_response(der, response)
    if isinstance(answer, Fault):
        return verdict.rejected(answer)
    verdict.answer = answer

    # 4. The CertID, recomputed and compared whole, names the certificate in question (3.2 item 1, 4.1.1).
    entries = _about(answer, leaf, issuer)
    if isinstance(entries, Fault):
        return verdict.rejected(entries)
    verdict.entry = max(entries, key=_worse)

    # 5. The responderID says who signed: the issuer, or a certificate enclosed (4.2.2.3, 3.2 item 3).
    candidates = named(answer, issuer)
    # 6. The signature over tbsResponseData decides who it was (3.2 item 2), and is strong (4.3).
    proved = [certificate for certificate in candidates if verifies(answer, certificate)]
    verdict.add(signature_faults(answer, candidates, proved, rules.sha1))
    # 7. That signer is authorized: the issuer itself, or its own delegate for OCSP (3.2 item 4, 4.2.2.2).
    signer, authority = authority_faults(proved or candidates, answer, issuer, now, rules.sha1)
    verdict.add(authority)
    authentic = bool(proved) and not any(
        fault.code is Code.OCSP_UNAUTHORIZED_RESPONDER for fault in authority
    )

    # 8. No critical extension that is not understood (4.4, RFC 5280 section 4.2).
    verdict.add(_extensions(answer, entries))

    # 9. thisUpdate, nextUpdate, producedAt, for every entry about the certificate (3.2 items 5, 6; 4.2.2.1).
    for entry in entries:
        verdict.add(_times(entry, answer.produced_at, now, rules))

    # 10. certStatus (2.2). What an impostor says of the status is shown, but is no finding.
    if authentic:
        verdict.add(_cert_status(verdict.entry))

    # 11. Acceptable, and yet: what servers and clients will stumble over.
    verdict.add(_outlook(entries, leaf, now))
    if verdict.is_sound():
        verdict.add(_ambiguity(answer, leaf, issuer, signer, candidates[0]))
    verdict.holds_until = _next_turn(candidates, entries, answer.produced_at, rules, now)
    return verdict.judged()


@dataclass(slots=True)
class _Draft:
    """The judgement in the making: the only thing here that changes."""

    leaf: x509.Certificate
    sha256: str
    answer: Answer | None = None
    entry: Entry | None = None
    faults: list[Fault] = field(default_factory=list)
    holds_until: datetime = _FOREVER

    def add(self, faults: Iterable[Fault]) -> None:
        """Take up faults that are not there yet (duplicate entries repeat theirs), and no crowd of one kind.

        What is left out has a twin of the same code and severity, and so changes no verdict.
        """
        for fault in faults:
            alike = [one for one in self.faults if (one.code, one.severity) == (fault.code, fault.severity)]
            if len(alike) < _SAID and fault not in alike:
                self.faults.append(fault)

    def is_sound(self) -> bool:
        """Tell whether nothing critical was found yet."""
        return all(_severity(fault) is not Severity.CRITICAL for fault in self.faults)

    def rejected(self, fault: Fault) -> Judgement:
        """End here: there is nothing left to look at."""
        self.add((fault,))
        return self.judged()

    def judged(self) -> Judgement:
        """Conclude: accepted is good with nothing critical."""
        findings = tuple(sorted(map(self._finding, self.faults), key=lambda found: not found.critical))
        good = self.entry is not None and self.entry.status is CertStatus.GOOD
        accepted = good and not any(found.critical for found in findings)
        return Judgement(
            status=self.entry.status if self.entry else None,
            acceptance=Acceptance.ACCEPTED if accepted else Acceptance.REJECTED,
            findings=findings,
            this_update=self.entry.this_update if self.entry else None,
            next_update=self.entry.next_update if self.entry else None,
            produced_at=self.answer.produced_at if self.answer else None,
            responder=self.answer.responder if self.answer else None,
            sha256=self.sha256,
            holds_until=self.holds_until,
        )

    def _finding(self, fault: Fault) -> Finding:
        severity = _severity(fault)
        evidence = dict(fault.evidence)
        if severity is Severity.CRITICAL:
            evidence["breaks_clients"] = _broken_clients(fault.code, self.leaf)
        subject = f"OCSP response for serial {self.leaf.serial_number:x}"
        return find(fault.code, subject, fault.message, severity=severity, evidence=evidence)


def _severity(fault: Fault) -> Severity:
    return fault.severity or CATALOGUE[fault.code].severity


def _broken_clients(code: Code, leaf: x509.Certificate) -> tuple[str, ...]:
    """Name the clients that refuse the connection when this is stapled."""
    clients = _BREAKS.get(code, ())
    return (*clients, "GnuTLS") if code in _BREAKS_MUST_STAPLE and must_staple(leaf) else clients


def _about(answer: Answer, leaf: x509.Certificate, issuer: x509.Certificate) -> tuple[Entry, ...] | Fault:
    if not issued_by(leaf, issuer):
        return Fault(Code.OCSP_WRONG_CERTIFICATE, "the certificate is not signed by the issuer given")
    matching = tuple(
        entry
        for entry in answer.entries
        if entry.algorithm and entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)
    )
    if matching:
        return matching
    serials = [f"{entry.cert_id[2]:x}" for entry in answer.entries[:10]]
    if f"{leaf.serial_number:x}" in serials:
        why = "the serial number is right, but not the hash of the issuer's name or key"
    else:
        why = f"it is about {', '.join(serials) or 'no certificate at all'}"
    return Fault(
        Code.OCSP_WRONG_CERTIFICATE,
        f"the response is not about this certificate: {why}",
        {"serials": serials},
    )


def _worse(entry: Entry) -> tuple[int, float]:
    """Orders entries about one certificate: by status, then by how soon they end."""
    return _RANK[entry.status], -(entry.next_update or entry.this_update).timestamp()


# --- steps 8 to 11: what it says ------------------------------------------------------------------


def _extensions(answer: Answer, entries: Iterable[Entry]) -> Iterable[Fault]:
    for oid in (*answer.unknown_critical, *(oid for entry in entries for oid in entry.unknown_critical)):
        yield Fault(
            Code.OCSP_CRITICAL_EXTENSION, f"the critical extension {oid} is not known", {"extension": oid}
        )


def _times(entry: Entry, produced_at: datetime, now: datetime, rules: Rules) -> Iterable[Fault]:
    this, next_, age = entry.this_update, entry.next_update, now - entry.this_update

    def fault(code: Code, message: str, severity: Severity | None = None) -> Fault:
        dates = {"this_update": this, "next_update": next_, "produced_at": produced_at, "now": now}
        evidence = {key: _shown(moment) if moment else None for key, moment in dates.items()}
        return Fault(code, message, evidence, severity)

    if this - now > SKEW:
        yield fault(Code.OCSP_NOT_YET_VALID, f"thisUpdate {_shown(this)} lies in the future")
    if produced_at - now > SKEW:
        yield fault(Code.OCSP_NOT_YET_VALID, f"producedAt {_shown(produced_at)} lies in the future")
    if produced_at < this:
        yield fault(Code.OCSP_NOT_YET_VALID, "producedAt lies before thisUpdate")
    if next_ is not None and next_ < this:
        yield fault(Code.OCSP_MALFORMED, "nextUpdate lies before thisUpdate")
    if next_ is not None and next_ <= now:
        yield fault(Code.OCSP_EXPIRED, f"nextUpdate was {_shown(next_)}")
    limit = rules.limit
    if age > limit and (next_ is None or rules.max_age is not None):
        yield fault(Code.OCSP_TOO_OLD, f"thisUpdate {_shown(this)} lies more than {limit} back")
    if next_ is None:
        severity = Severity.WARNING if age > _AGEING else Severity.INFO
        why = f"there is no nextUpdate; thisUpdate was {_shown(this)}"
        yield fault(Code.OCSP_NO_NEXT_UPDATE, why, severity)


def _next_turn(
    signers: Iterable[x509.Certificate],
    entries: Iterable[Entry],
    produced_at: datetime,
    rules: Rules,
    now: datetime,
) -> datetime:
    """Find the first moment after `now` at which a rule about time, or a warning, may change its mind."""
    limit = rules.limit
    zero = timedelta(0)
    turns = [(produced_at, -SKEW)]
    for signer in signers:
        turns += [(signer.not_valid_before_utc, zero), (signer.not_valid_after_utc, zero)]
    for entry in entries:
        turns += [(entry.this_update, after) for after in (-SKEW, _AGEING, limit)]
        if entry.next_update is not None:
            near = min((entry.next_update - entry.this_update) / 4, _NEAR)
            turns += [(entry.next_update, zero), (entry.next_update, -near)]
    following = _FOREVER
    for moment, after in turns:
        for instant in (zero, _INSTANT):  # some rules turn at the moment itself, some right after it
            with suppress(OverflowError):
                turn = moment + after + instant
                following = min(following, turn) if turn > now else following
    return following


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _cert_status(entry: Entry) -> Iterable[Fault]:
    match entry.status:
        case CertStatus.GOOD:
            return
        case CertStatus.REVOKED:
            when = _shown(entry.revoked_at) if entry.revoked_at else None
            why = f"the certificate was revoked at {when}, reason {entry.reason or 'not given'}"
            yield Fault(Code.OCSP_REVOKED, why, {"revoked_at": when, "reason": entry.reason})
        case CertStatus.UNKNOWN:
            yield Fault(Code.OCSP_UNKNOWN, "the responder does not know the certificate")
        case _:
            assert_never(entry.status)


def _ambiguity(
    answer: Answer,
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    signer: x509.Certificate | None,
    first: x509.Certificate,
) -> Iterable[Fault]:
    """Say what OpenSSL stumbles over, which looks at the first certificate named and at every entry."""
    evidence: dict[str, Json] = {"breaks_clients": ("OpenSSL",)}
    if not all(
        entry.algorithm and entry.cert_id[:2] == cert_id(leaf, issuer, entry.algorithm.name)[:2]
        for entry in answer.entries
    ):
        why = "the response also speaks of certificates of other issuers"
        yield Fault(Code.OCSP_AMBIGUOUS, why, evidence)
    if signer != first:
        why = "the first certificate that the responderID names is not the one that may sign"
        yield Fault(Code.OCSP_AMBIGUOUS, why, evidence)


def _outlook(entries: Iterable[Entry], leaf: x509.Certificate, now: datetime) -> Iterable[Fault]:
    entries = tuple(entries)
    if all(entry.algorithm is None or entry.algorithm.name != SHA1.name for entry in entries):
        used = ", ".join(sorted({entry.algorithm.name for entry in entries if entry.algorithm}))
        evidence: dict[str, Json] = {"hash": used, "breaks_clients": (_CURL,)}
        yield Fault(Code.OCSP_CERTID_UNMATCHED, f"the CertID is hashed with {used}, not with SHA-1", evidence)
    ends = [(entry.this_update, entry.next_update) for entry in entries if entry.next_update]
    for this, next_ in ends:
        if timedelta(0) < next_ - now < min((next_ - this) / 4, _NEAR):
            shown = _shown(next_)
            yield Fault(
                Code.STAPLE_NEAR_EXPIRY, f"the response ends soon, at {shown}", {"next_update": shown}
            )
        if next_ > leaf.not_valid_after_utc:
            shown = _shown(leaf.not_valid_after_utc)
            yield Fault(
                Code.OCSP_OUTLIVES_LEAF,
                f"nextUpdate lies after the certificate's end, {shown}",
                {"not_after": shown},
            )
