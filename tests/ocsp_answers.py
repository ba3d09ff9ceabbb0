"""Answers that differ from a good one in one thing, each with its accepting twin, and how they are judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any  # dataclasses.replace() is checked at run time

import pki
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from pki import Answer, KeyKind, Pki, explicit, extension, integer, make_pki
from stapleguard.finding import Code
from stapleguard.ocsp import Judgement, Rules, Sha1, judge

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
HOUR, DAY, MINUTE, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
THEN = NOW - HOUR
P256 = make_pki(KeyKind.P256, NOW)
RSA = make_pki(KeyKind.RSA2048, NOW)
OTHER = make_pki(KeyKind.P384, NOW)
GOOD = Answer.good(P256, NOW)
DELEGATED = Answer.delegated(P256, NOW)
OLD_TEST_DATA = Rules(sha1=Sha1.ALLOWED)


def judged(
    answer: Answer | bytes, rules: Rules | None = None, of: Pki = P256, now: datetime = NOW
) -> Judgement:
    der = answer if isinstance(answer, bytes) else answer.der()
    return judge(der, of.leaf.certificate, of.issuer.certificate, now, rules or Rules())


def critical(judgement: Judgement) -> set[Code]:
    return {found.code for found in judgement.findings if found.critical}


def others(judgement: Judgement) -> set[Code]:
    return {found.code for found in judgement.findings if not found.critical}


def entry(base: Answer = GOOD, **changes: Any) -> Answer:
    return replace(base, entry=replace(base.entry, **changes))


def cert_id(**changes: Any) -> Answer:
    return entry(cert_id=replace(GOOD.entry.cert_id, **changes))


def delegate(under: Pki = P256, **changes: Any) -> Answer:
    """Answer by a delegate whose certificate says something else than usual."""
    signer = replace(under.blank_delegate, **changes).sign(under.delegate.key)
    return Answer.delegated(under, NOW, signer)


def saying(*extensions: tuple[x509.ExtensionType, bool]) -> Answer:
    return delegate(extensions=extensions)


def unknown_extension(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical


def flipped(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


# Each: the broken answer, the one code it earns, and the twin that differs only in keeping the rule.

NONCE = pki.NONCE
ALIEN = "1.2.3.4"
EC_NULL = pki.Algorithm(pki.seq(pki.oid("1.2.840.10045.4.3.2"), pki.NULL), pki.ECDSA_SHA256.sign)
LEAF_ID = GOOD.entry.cert_id
MALFORMED = Code.OCSP_MALFORMED
WRONG = Code.OCSP_WRONG_CERTIFICATE
IMPOSTOR = Code.OCSP_UNAUTHORIZED_RESPONDER
SIGNER_STARTS, SIGNER_ENDS = P256.blank_delegate.not_before, P256.blank_delegate.not_after

CASES: dict[str, tuple[Answer, Code, Answer]] = {
    # form
    "encoded version v1": (replace(GOOD, version=explicit(0, integer(0))), MALFORMED, GOOD),
    "version v2": (replace(GOOD, version=explicit(0, integer(1))), MALFORMED, GOOD),
    "another response type": (replace(GOOD, response_type="1.3.6.1.5.5.7.48.1.99"), MALFORMED, GOOD),
    "undefined status 4": (replace(GOOD, status=pki.enumerated(4)), MALFORMED, GOOD),
    "undefined status 7": (replace(GOOD, status=pki.enumerated(7)), MALFORMED, GOOD),
    "status with a leading zero": (replace(GOOD, status=pki.tlv(10, b"\0\0")), MALFORMED, GOOD),
    "bytes after the response": (replace(GOOD, tail=b"\0"), MALFORMED, GOOD),
    "bytes in the response": (replace(GOOD, tail_response=pki.NULL), MALFORMED, GOOD),
    "bytes in the explicit tag": (replace(GOOD, tail_explicit=pki.NULL), MALFORMED, GOOD),
    "bytes in responseBytes": (replace(GOOD, tail_bytes=pki.NULL), MALFORMED, GOOD),
    "bytes after the basic response": (replace(GOOD, tail_octets=pki.NULL), MALFORMED, GOOD),
    "bytes in the basic response": (replace(GOOD, tail_basic=pki.NULL), MALFORMED, GOOD),
    "bytes in the response data": (replace(GOOD, tail_data=pki.NULL), MALFORMED, GOOD),
    "bytes in the entry": (entry(tail=pki.NULL), MALFORMED, GOOD),
    "thisUpdate with a fraction": (
        entry(this_update=b"20260601110000.5Z"),
        MALFORMED,
        entry(this_update=b"20260601110000Z"),
    ),
    "thisUpdate without seconds": (
        entry(this_update=b"202606011100Z"),
        MALFORMED,
        entry(this_update=b"20260601110000Z"),
    ),
    "nextUpdate with an offset": (
        entry(next_update=b"20260606110000+0000"),
        MALFORMED,
        entry(next_update=b"20260606110000Z"),
    ),
    "producedAt in local time": (
        replace(GOOD, produced_at=b"20260601110000"),
        MALFORMED,
        replace(GOOD, produced_at=b"20260601110000Z"),
    ),
    "a thirtieth of February": (
        entry(this_update=b"20260230110000Z"),
        MALFORMED,
        entry(this_update=b"20260601110000Z"),
    ),
    "the year nought": (
        entry(this_update=b"00000601110000Z"),
        MALFORMED,
        entry(this_update=b"20260601110000Z"),
    ),
    "half an octet of signature": (
        replace(GOOD, unused_bits=4, damage=lambda signature: signature + b"\0"),
        MALFORMED,
        GOOD,
    ),
    "parameters with ECDSA": (replace(GOOD, algorithm=EC_NULL), MALFORMED, GOOD),
    "an empty list of response extensions": (
        replace(GOOD, extensions=()),
        MALFORMED,
        replace(GOOD, extensions=(extension(ALIEN),)),
    ),
    "an empty list of entry extensions": (
        entry(extensions=()),
        MALFORMED,
        entry(extensions=(extension(ALIEN),)),
    ),
    "an extension twice": (
        entry(extensions=(extension(ALIEN), extension(ALIEN))),
        MALFORMED,
        entry(extensions=(extension(ALIEN), extension("1.2.3.5"))),
    ),
    "critical FALSE encoded": (
        entry(extensions=(extension(ALIEN, critical=pki.tlv(1, b"\0")),)),
        MALFORMED,
        entry(extensions=(extension(ALIEN),)),
    ),
    "a short KeyHash": (replace(GOOD, responder=explicit(2, pki.octets(b"short"))), MALFORMED, GOOD),
    "a good that is constructed": (entry(status=b"\xa0\x00"), MALFORMED, GOOD),
    # CertID
    "no entry at all": (replace(GOOD, empty=True), WRONG, GOOD),
    "another serial": (cert_id(serial=integer(P256.leaf.certificate.serial_number + 1)), WRONG, GOOD),
    "the serial negated": (cert_id(serial=integer(-P256.leaf.certificate.serial_number)), WRONG, GOOD),
    "a serial that begins the same": (
        cert_id(serial=integer(P256.leaf.certificate.serial_number >> 8)),
        WRONG,
        GOOD,
    ),
    "another issuer name": (cert_id(name_hash=b"\1" * 20), WRONG, GOOD),
    "another issuer key": (cert_id(key_hash=b"\1" * 20), WRONG, GOOD),
    "a hash cut short": (cert_id(key_hash=LEAF_ID.key_hash[:-1]), WRONG, GOOD),
    "another hash algorithm than said": (
        cert_id(algorithm=pki.seq(pki.oid(pki.SHA256), pki.NULL)),
        WRONG,
        GOOD,
    ),
    "a CertID hash that is none of ours": (cert_id(algorithm=pki.seq(pki.oid(ALIEN))), WRONG, GOOD),
    "a CertID hash of SHA-224": (
        Answer.good(P256, NOW, pki.SHA224),
        WRONG,
        Answer.good(P256, NOW, pki.SHA256),
    ),
    # responder and signature
    "a responder that is nobody": (
        replace(GOOD, responder=explicit(2, pki.octets(b"\1" * 20))),
        IMPOSTOR,
        GOOD,
    ),
    "a name that is nobody's": (
        replace(GOOD, responder=explicit(1, pki.name("Nobody").public_bytes())),
        IMPOSTOR,
        replace(GOOD, responder=pki.by_name(P256.issuer)),
    ),
    "a delegate that is not enclosed": (replace(DELEGATED, certs=None), IMPOSTOR, DELEGATED),
    "a delegate under the issuer's name": (
        replace(DELEGATED, responder=pki.by_name(P256.issuer)),
        Code.OCSP_BAD_SIGNATURE,
        replace(DELEGATED, responder=pki.by_key(P256.delegate)),
    ),
    "signed by the leaf": (replace(GOOD, key=P256.leaf.key), Code.OCSP_BAD_SIGNATURE, GOOD),
    "signed by a delegate of another CA": (
        delegate(under=replace(P256, blank_delegate=replace(P256.blank_delegate, under=OTHER.issuer))),
        IMPOSTOR,
        DELEGATED,
    ),
    "signed by a delegate that signed itself": (
        delegate(
            under=replace(P256, blank_delegate=replace(P256.blank_delegate, under=None, issuer="Test CA"))
        ),
        IMPOSTOR,
        DELEGATED,
    ),
    "signed with another issuer name": (delegate(issuer="Test CB"), IMPOSTOR, DELEGATED),
    "a delegate out of date": (delegate(not_after=NOW - SECOND), IMPOSTOR, delegate(not_after=NOW)),
    "a delegate not yet in date": (delegate(not_before=NOW + SECOND), IMPOSTOR, delegate(not_before=THEN)),
    "produced before the delegate's life": (
        delegate(not_before=THEN + SECOND),
        IMPOSTOR,
        delegate(not_before=THEN),
    ),
    "a CA as delegate": (
        saying(pki.CA, pki.SIGNS, pki.OCSP_SIGNING, pki.NOCHECK),
        IMPOSTOR,
        saying(pki.SIGNS, pki.OCSP_SIGNING, pki.NOCHECK),
    ),
    "a delegate without purpose": (saying(pki.NOT_CA, pki.SIGNS, pki.NOCHECK), IMPOSTOR, DELEGATED),
    "a delegate for any purpose": (
        saying((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False), pki.NOCHECK),
        IMPOSTOR,
        saying(
            (
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.OCSP_SIGNING]
                ),
                False,
            ),
            pki.NOCHECK,
        ),
    ),
    "a delegate that may only encipher": (
        saying((pki.key_usage(key_encipherment=True), True), pki.OCSP_SIGNING, pki.NOCHECK),
        IMPOSTOR,
        saying((pki.key_usage(content_commitment=True), True), pki.OCSP_SIGNING, pki.NOCHECK),
    ),
    "a delegate with an unknown critical extension": (
        saying(*pki.DELEGATE, unknown_extension(critical=True)),
        IMPOSTOR,
        saying(*pki.DELEGATE, unknown_extension(critical=False)),
    ),
    "a delegate signed with SHA-224": (
        delegate(hash=hashes.SHA224()),
        Code.OCSP_WEAK_SIGNATURE,
        delegate(hash=hashes.SHA384()),
    ),
    # critical extensions
    "an unknown critical response extension": (
        replace(GOOD, extensions=(extension(ALIEN, critical=pki.CRITICAL),)),
        Code.OCSP_CRITICAL_EXTENSION,
        replace(
            GOOD,
            extensions=(
                extension(NONCE, critical=pki.CRITICAL),
                extension(pki.EXTENDED_REVOKE, critical=pki.CRITICAL),
            ),
        ),
    ),
    "an unknown critical entry extension": (
        entry(extensions=(extension(ALIEN, critical=pki.CRITICAL),)),
        Code.OCSP_CRITICAL_EXTENSION,
        entry(
            extensions=tuple(
                extension(oid, critical=pki.CRITICAL)
                for oid in (pki.SCT_LIST, pki.CRL_REFERENCES, pki.ARCHIVE_CUTOFF)
            )
        ),
    ),
    "a critical nonce in an entry": (
        entry(extensions=(extension(NONCE, critical=pki.CRITICAL),)),
        Code.OCSP_CRITICAL_EXTENSION,
        entry(extensions=(extension(NONCE),)),
    ),
    # times
    "thisUpdate too far ahead": (
        replace(entry(this_update=NOW + 5 * MINUTE + SECOND), produced_at=NOW + 5 * MINUTE + SECOND),
        Code.OCSP_NOT_YET_VALID,
        replace(entry(this_update=NOW + 5 * MINUTE), produced_at=NOW + 5 * MINUTE),
    ),
    "producedAt too far ahead": (
        replace(GOOD, produced_at=NOW + 5 * MINUTE + SECOND),
        Code.OCSP_NOT_YET_VALID,
        replace(GOOD, produced_at=NOW + 5 * MINUTE),
    ),
    "producedAt before thisUpdate": (
        replace(GOOD, produced_at=THEN - SECOND),
        Code.OCSP_NOT_YET_VALID,
        replace(GOOD, produced_at=THEN),
    ),
    "nextUpdate now": (entry(next_update=NOW), Code.OCSP_EXPIRED, entry(next_update=NOW + SECOND)),
    "no nextUpdate and a week old": (
        entry(next_update=None, this_update=NOW - 7 * DAY - SECOND),
        Code.OCSP_TOO_OLD,
        entry(next_update=None, this_update=NOW - 7 * DAY),
    ),
    # status
    "revoked": (entry(status=pki.revoked(THEN, pki.enumerated(1))), Code.OCSP_REVOKED, GOOD),
    "revoked for an undefined reason": (
        entry(status=pki.revoked(THEN, pki.enumerated(7))),
        Code.OCSP_REVOKED,
        GOOD,
    ),
    "unknown": (entry(status=pki.UNKNOWN), Code.OCSP_UNKNOWN, GOOD),
    "good and revoked": (
        replace(GOOD, more=(replace(GOOD.entry, status=pki.revoked(THEN)),)),
        Code.OCSP_REVOKED,
        replace(GOOD, more=(GOOD.entry,)),
    ),
    "good and unknown": (
        replace(GOOD, more=(replace(GOOD.entry, status=pki.UNKNOWN),)),
        Code.OCSP_UNKNOWN,
        replace(GOOD, more=(GOOD.entry,)),
    ),
    "good and expired": (
        replace(GOOD, more=(replace(GOOD.entry, next_update=NOW),)),
        Code.OCSP_EXPIRED,
        replace(GOOD, more=(GOOD.entry,)),
    ),
    "a critical extension in the second entry": (
        replace(GOOD, more=(replace(GOOD.entry, extensions=(extension(ALIEN, critical=pki.CRITICAL),)),)),
        Code.OCSP_CRITICAL_EXTENSION,
        replace(GOOD, more=(replace(GOOD.entry, extensions=(extension(ALIEN),)),)),
    ),
}
