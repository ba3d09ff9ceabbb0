"""What the answer is about and what it says: RFC 6960 sections 4.1.1, 2.2, 4.4; the worst entry wins."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

import asn1
import pki
from asn1 import CRITICAL, NULL, enumerated, integer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pki import NONCE, Answer, Pki, extension, revoked
from stapleguard.finding import Code
from stapleguard.model import CertStatus
from stapleguard.ocsp import Rules
from twins import ALIEN, DAY, By, Make, Mutation, Setting, Table, Variant


def about(broken: Make, twin: Make | None = None, by: By = By.ANY) -> Mutation:
    """Make an answer that is about nothing we asked."""
    if twin is None:
        return Mutation(Code.OCSP_WRONG_CERTIFICATE, broken, by=by, status=None)
    return Mutation(Code.OCSP_WRONG_CERTIFICATE, broken, twin, by=by, status=None)


def says(status: CertStatus, broken: Make, twin: Make) -> Mutation:
    """Make an answer that does not say good."""
    code = Code.OCSP_REVOKED if status is CertStatus.REVOKED else Code.OCSP_UNKNOWN
    return Mutation(code, broken, twin, status=status)


def serial(setting: Setting) -> int:
    """Look up the serial number in question."""
    return setting.pki.leaf.certificate.serial_number


def same_name(setting: Setting) -> pki.Signer:
    """Make an authority of the same name with another key."""
    issuer = pki.Blank("Test CA", setting.now - 700 * DAY, setting.now + 700 * DAY, extensions=(pki.CA,))
    return issuer.sign(setting.other.issuer.key)


def of_its_namesake(setting: Setting, *, asked: bool) -> Variant:
    """Answer for the certificate of the same serial number under a namesake; or for the one asked about."""
    false = pki.CertId.of(setting.pki.leaf.certificate, same_name(setting).certificate)
    return Variant(setting.base if asked else setting.entry(cert_id=false))


def leaf_of_another(setting: Setting, *, foreign: bool) -> Variant:
    """Ask about a leaf that carries the issuer's name but was signed by somebody else's key."""
    by = pki.Signer(setting.pki.issuer.certificate, setting.other.issuer.key)
    leaf = pki.retold(setting.pki.leaf.certificate, by if foreign else setting.pki.issuer)
    of: Pki = replace(
        setting.pki, leaf=pki.Signer(x509.load_der_x509_certificate(leaf), setting.pki.leaf.key)
    )
    return Variant(setting.base, of=of)


def hashed_as(setting: Setting, said: str) -> Answer:
    return setting.cert_id(algorithm=asn1.seq(asn1.oid(said), NULL))


def critical(*oids: str) -> tuple[bytes, ...]:
    return tuple(extension(oid, critical=CRITICAL) for oid in oids)


KEY_COMPROMISE = enumerated(1)

CERT_ID: Final[Table] = {
    "no entry at all": about(lambda s: s.but(empty=True)),
    "the next serial number": about(lambda s: s.cert_id(serial=integer(serial(s) + 1))),
    "the serial number negated": about(lambda s: s.cert_id(serial=integer(-serial(s)))),
    "the serial number's two's complement": about(
        lambda s: s.cert_id(serial=integer(serial(s) - (1 << 8 * ((serial(s).bit_length() + 7) // 8))))
    ),
    "a serial number that begins the same": about(lambda s: s.cert_id(serial=integer(serial(s) >> 8))),
    "a serial number that ends the same": about(
        lambda s: s.cert_id(serial=integer(serial(s) + (1 << 8 * 24)))
    ),
    "the serial number and more": about(lambda s: s.cert_id(serial=integer(serial(s) << 8))),
    "an overlong serial number": about(lambda s: s.cert_id(serial=integer(1 << 4000))),
    "another issuer name": about(lambda s: s.cert_id(name_hash=b"\1" * 20)),
    "another issuer key": about(lambda s: s.cert_id(key_hash=b"\1" * 20)),
    "name and key exchanged": about(
        lambda s: s.cert_id(name_hash=s.base.entry.cert_id.key_hash, key_hash=s.base.entry.cert_id.name_hash)
    ),
    "a name hash cut short": about(lambda s: s.cert_id(name_hash=s.base.entry.cert_id.name_hash[:-1])),
    "a key hash cut short": about(lambda s: s.cert_id(key_hash=s.base.entry.cert_id.key_hash[:-1])),
    "a key hash with more": about(lambda s: s.cert_id(key_hash=s.base.entry.cert_id.key_hash + b"\0")),
    "an empty key hash": about(lambda s: s.cert_id(key_hash=b"")),
    "the key hash of the whole key info": about(
        lambda s: s.cert_id(
            key_hash=hashlib.sha1(
                s.pki.issuer.certificate.public_key().public_bytes(
                    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
                )
            ).digest()
        )
    ),
    "the leaf's own name": about(
        lambda s: s.cert_id(name_hash=hashlib.sha1(s.pki.leaf.certificate.subject.public_bytes()).digest())
    ),
    "said to be SHA-256": about(lambda s: hashed_as(s, pki.SHA256), lambda s: s.hashed(pki.SHA256)),
    "SHA-512 said to be SHA-1": about(
        lambda s: replace(
            s.hashed(pki.SHA512),
            entry=replace(
                s.hashed(pki.SHA512).entry,
                cert_id=replace(s.hashed(pki.SHA512).entry.cert_id, algorithm=s.base.entry.cert_id.algorithm),
            ),
        ),
        lambda s: s.hashed(pki.SHA512),
    ),
    "a hash that nobody knows": about(
        lambda s: s.cert_id(algorithm=asn1.seq(asn1.oid(ALIEN))), lambda s: s.hashed(pki.SHA384)
    ),
    "a hash of SHA-224": about(lambda s: s.hashed(pki.SHA224), lambda s: s.hashed(pki.SHA256)),
    "the namesake's certificate": about(
        lambda s: of_its_namesake(s, asked=False), lambda s: of_its_namesake(s, asked=True)
    ),
    "a leaf that the issuer did not sign": about(
        lambda s: leaf_of_another(s, foreign=True), lambda s: leaf_of_another(s, foreign=False)
    ),
    "only entries about others": about(
        lambda s: replace(
            s.cert_id(serial=integer(7)),
            more=tuple(
                replace(s.cert_id(serial=integer(number)).entry, status=pki.GOOD) for number in range(8, 40)
            ),
        ),
        lambda s: replace(
            s.cert_id(serial=integer(7)), more=(s.cert_id(serial=integer(8)).entry, s.base.entry)
        ),
    ),
}

STATUS: Final[Table] = {
    "revoked": says(CertStatus.REVOKED, lambda s: s.entry(status=revoked(s.then)), lambda s: s.base),
    "revoked with a reason": says(
        CertStatus.REVOKED, lambda s: s.entry(status=revoked(s.then, KEY_COMPROMISE)), lambda s: s.base
    ),
    "revoked for an undefined reason": says(
        CertStatus.REVOKED, lambda s: s.entry(status=revoked(s.then, enumerated(7))), lambda s: s.base
    ),
    "revoked, removeFromCRL": says(
        CertStatus.REVOKED, lambda s: s.entry(status=revoked(s.then, enumerated(8))), lambda s: s.base
    ),
    "revoked from tomorrow": says(
        CertStatus.REVOKED, lambda s: s.entry(status=revoked(s.now + DAY)), lambda s: s.base
    ),
    "unknown": says(CertStatus.UNKNOWN, lambda s: s.entry(status=pki.UNKNOWN), lambda s: s.base),
    "good, then revoked": says(
        CertStatus.REVOKED, lambda s: s.twice(status=revoked(s.then)), lambda s: s.twice()
    ),
    "revoked, then good": says(
        CertStatus.REVOKED, lambda s: s.twice(status=revoked(s.then), last=False), lambda s: s.twice()
    ),
    "good, then unknown": says(
        CertStatus.UNKNOWN, lambda s: s.twice(status=pki.UNKNOWN), lambda s: s.twice()
    ),
    "unknown, then good": says(
        CertStatus.UNKNOWN, lambda s: s.twice(status=pki.UNKNOWN, last=False), lambda s: s.twice()
    ),
    "good by SHA-1, revoked by SHA-256": says(
        CertStatus.REVOKED,
        lambda s: s.twice(cert_id=s.hashed(pki.SHA256).entry.cert_id, status=revoked(s.then)),
        lambda s: s.twice(cert_id=s.hashed(pki.SHA256).entry.cert_id),
    ),
    "revoked after another that is good": says(
        CertStatus.REVOKED,
        lambda s: replace(
            s.cert_id(serial=integer(7)), more=(replace(s.base.entry, status=revoked(s.then)),)
        ),
        lambda s: replace(
            replace(s.cert_id(serial=integer(7)), entry=replace(s.base.entry, status=revoked(s.then))),
            entry=replace(s.cert_id(serial=integer(7)).entry, status=revoked(s.then)),
            more=(s.base.entry,),
        ),
    ),
    "good, then expired": Mutation(
        Code.OCSP_EXPIRED, lambda s: s.twice(next_update=s.now), lambda s: s.twice()
    ),
    "expired, then good": Mutation(
        Code.OCSP_EXPIRED, lambda s: s.twice(next_update=s.now, last=False), lambda s: s.twice()
    ),
    "good, then of tomorrow": Mutation(
        Code.OCSP_NOT_YET_VALID,
        lambda s: s.twice(this_update=s.now + DAY, next_update=s.now + 2 * DAY),
        lambda s: s.twice(),
    ),
    "a status that the caller's age refuses": Mutation(
        Code.OCSP_TOO_OLD,
        lambda s: Variant(s.base, rules=Rules(max_age=3599)),
        lambda s: Variant(s.base, rules=Rules(max_age=3600)),
    ),
    "an unknown critical response extension": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.but(extensions=critical(ALIEN)),
        lambda s: s.but(extensions=critical(NONCE, pki.EXTENDED_REVOKE)),
    ),
    "an unknown critical response extension after others": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.but(extensions=(extension(NONCE), *critical(ALIEN))),
        lambda s: s.but(extensions=(extension(NONCE), extension(ALIEN))),
    ),
    "an unknown critical entry extension": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.entry(extensions=critical(ALIEN)),
        lambda s: s.entry(extensions=critical(pki.SCT_LIST, pki.CRL_REFERENCES, pki.ARCHIVE_CUTOFF)),
    ),
    "a critical extension without nextUpdate": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.entry(next_update=None, extensions=critical(ALIEN)),
        lambda s: s.entry(next_update=None, extensions=(extension(ALIEN),)),
    ),
    "a critical nonce in an entry": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.entry(extensions=critical(NONCE)),
        lambda s: s.entry(extensions=(extension(NONCE),)),
    ),
    "a critical archive cutoff in the response": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.but(extensions=critical(pki.ARCHIVE_CUTOFF)),
        lambda s: s.but(extensions=(extension(pki.ARCHIVE_CUTOFF),)),
    ),
    "a critical extension in the second entry": Mutation(
        Code.OCSP_CRITICAL_EXTENSION,
        lambda s: s.twice(extensions=critical(ALIEN)),
        lambda s: s.but(
            more=(replace(s.cert_id(serial=integer(7)).entry, extensions=critical(ALIEN)),)
        ),  # of an entry about another certificate it is none of our business
    ),
}
