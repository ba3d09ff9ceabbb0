"""A small factory of certificates and OCSP responses: fresh keys, real signatures, every field open.

`Answer` is written with the DER emitter of asn1crypto, field by field after RFC 6960 section 4.2.1,
so that a test can put one thing wrong and sign the rest as a responder would::

    pki = make_pki(KeyKind.P256)
    good = Answer.good(pki, now)
    late = replace(good, entry=replace(good.entry, next_update=now))
    late.der()
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from typing import Final

from asn1 import NULL, bits, enumerated, explicit, integer, octets, oid, seq, tlv
from asn1crypto.algos import SignedDigestAlgorithm
from asn1crypto.x509 import Certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)

BASIC: Final = "1.3.6.1.5.5.7.48.1.1"
NONCE: Final = "1.3.6.1.5.5.7.48.1.2"
CRL_REFERENCES: Final = "1.3.6.1.5.5.7.48.1.3"
ARCHIVE_CUTOFF: Final = "1.3.6.1.5.5.7.48.1.6"
EXTENDED_REVOKE: Final = "1.3.6.1.5.5.7.48.1.9"
SCT_LIST: Final = "1.3.6.1.4.1.11129.2.4.5"

SHA1: Final = "1.3.14.3.2.26"
SHA224: Final = "2.16.840.1.101.3.4.2.4"
SHA256: Final = "2.16.840.1.101.3.4.2.1"
SHA384: Final = "2.16.840.1.101.3.4.2.2"
SHA512: Final = "2.16.840.1.101.3.4.2.3"
HASHES: Final = {SHA1: "sha1", SHA224: "sha224", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}

GOOD: Final = b"\x80\x00"
UNKNOWN: Final = b"\x82\x00"


def time(moment: datetime | bytes) -> bytes:
    """GeneralizedTime; bytes go in as they are, for wrong forms."""
    return tlv(24, moment if isinstance(moment, bytes) else moment.strftime("%Y%m%d%H%M%SZ").encode())


def extension(dotted: str, *, critical: bytes = b"", value: bytes = NULL) -> bytes:
    """One Extension; `critical` is what stands there (`asn1.CRITICAL`, or nothing for the default)."""
    return seq(oid(dotted), critical, octets(value))


def revoked(at: datetime | bytes, reason: bytes = b"") -> bytes:
    """CertStatus revoked; `reason` is the content of its [0]."""
    return explicit(1, time(at), explicit(0, reason) if reason else b"")


# --- certificates ------------------------------------------------------------------------------


class KeyKind(Enum):
    """The keys that the tests use."""

    RSA2048 = "rsa-2048"
    RSA1024 = "rsa-1024"
    P256 = "p-256"
    P384 = "p-384"
    P521 = "p-521"
    P224 = "p-224"
    ED25519 = "ed25519"
    ED448 = "ed448"
    DSA2048 = "dsa-2048"


def new_key(kind: KeyKind) -> PrivateKey:
    """Make a fresh private key."""
    match kind:
        case KeyKind.RSA2048:
            return rsa.generate_private_key(65537, 2048)
        case KeyKind.RSA1024:
            return rsa.generate_private_key(65537, 1024)  # the weak key that must be noticed
        case KeyKind.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyKind.P521:
            return ec.generate_private_key(ec.SECP521R1())
        case KeyKind.P224:
            return ec.generate_private_key(ec.SECP224R1())
        case KeyKind.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyKind.ED448:
            return ed448.Ed448PrivateKey.generate()
        case KeyKind.DSA2048:
            return dsa.generate_private_key(2048)


def name(common_name: str) -> x509.Name:
    """Make a distinguished name of two attributes."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def printable_name(common_name: str) -> bytes:
    """Write the same name in PrintableStrings, where `cryptography` writes UTF8Strings."""
    pairs = (("2.5.4.10", "Test"), ("2.5.4.3", common_name))
    return seq(*(tlv(17, seq(oid(kind), tlv(19, text.encode())), constructed=1) for kind, text in pairs))


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class Blank:
    """What a certificate is to say; `under` signs it, None is self-signed."""

    subject: str
    not_before: datetime
    not_after: datetime
    under: Signer | None = None
    issuer: str | None = None
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    hash: hashes.SHA224 | hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA256)
    serial: int | None = None

    def sign(self, key: PrivateKey) -> Signer:
        """Make the certificate for this key."""
        under = self.under
        by = under.key if under else key
        issuer = (
            name(self.issuer) if self.issuer else under.certificate.subject if under else name(self.subject)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.subject))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(self.serial or x509.random_serial_number())
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        for value, critical in self.extensions:
            builder = builder.add_extension(value, critical=critical)
        edwards = isinstance(by, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
        return Signer(builder.sign(by, None if edwards else self.hash), key)


def key_usage(**allowed: bool) -> x509.KeyUsage:
    """Make a keyUsage with only the named bits set."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{bit: allowed.get(bit, False) for bit in every})


CA: Final = (x509.BasicConstraints(ca=True, path_length=None), True)
NOT_CA: Final = (x509.BasicConstraints(ca=False, path_length=None), True)
OCSP_SIGNING: Final = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
SIGNS: Final = (key_usage(digital_signature=True), True)
NOCHECK: Final = (x509.OCSPNoCheck(), False)
DELEGATE: Final = (NOT_CA, SIGNS, OCSP_SIGNING, NOCHECK)


@dataclass(frozen=True, slots=True)
class Pki:
    """An issuer, a leaf of it and a delegated responder of it, all with keys of one kind."""

    kind: KeyKind
    issuer: Signer
    leaf: Signer
    delegate: Signer
    blank_delegate: Blank


@cache
def make_pki(kind: KeyKind, now: datetime, delegate: KeyKind | None = None) -> Pki:
    """One set for each kind of key and time (key generation is the slow part of the tests).

    The delegate's key is of the same kind unless another is named.
    """
    start, end = now - timedelta(days=30), now + timedelta(days=60)
    issuer = Blank("Test CA", start - timedelta(days=700), end + timedelta(days=700), extensions=(CA,)).sign(
        new_key(kind)
    )
    leaf = Blank("leaf.test", start, end, under=issuer, extensions=(NOT_CA,)).sign(new_key(kind))
    blank = Blank("Test OCSP", start, end, under=issuer, extensions=DELEGATE)
    return Pki(kind, issuer, leaf, blank.sign(new_key(delegate or kind)), blank)


# --- signatures --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A signatureAlgorithm as it is encoded, and how a key makes such a signature."""

    encoded: bytes
    sign: Callable[[PrivateKey, bytes], bytes]


def _rsa(hash_: hashes.HashAlgorithm) -> Callable[[PrivateKey, bytes], bytes]:
    def sign(key: PrivateKey, data: bytes) -> bytes:
        assert isinstance(key, rsa.RSAPrivateKey)
        return key.sign(data, padding.PKCS1v15(), hash_)

    return sign


def _ecdsa(hash_: hashes.HashAlgorithm) -> Callable[[PrivateKey, bytes], bytes]:
    def sign(key: PrivateKey, data: bytes) -> bytes:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.sign(data, ec.ECDSA(hash_))

    return sign


def _edwards(key: PrivateKey, data: bytes) -> bytes:
    assert isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return key.sign(data)


def _dsa(key: PrivateKey, data: bytes) -> bytes:
    assert isinstance(key, dsa.DSAPrivateKey)
    return key.sign(data, hashes.SHA256())


def pss(digest: str, hash_: hashes.HashAlgorithm, *, salt: int = 32, trailer: bytes = b"") -> Algorithm:
    """RSASSA-PSS with MGF1 over the same hash (RFC 4055 section 3.1)."""
    algorithm = seq(oid(digest), NULL)
    parameters = seq(
        explicit(0, algorithm),
        explicit(1, seq(oid("1.2.840.113549.1.1.8"), algorithm)),
        explicit(2, integer(salt)),
        trailer,
    )

    def sign(key: PrivateKey, data: bytes) -> bytes:
        assert isinstance(key, rsa.RSAPrivateKey)
        return key.sign(data, padding.PSS(padding.MGF1(hash_), salt), hash_)

    return Algorithm(seq(oid("1.2.840.113549.1.1.10"), parameters), sign)


RSA_SHA1: Final = Algorithm(seq(oid("1.2.840.113549.1.1.5"), NULL), _rsa(hashes.SHA1()))  # the refused one
RSA_SHA256: Final = Algorithm(seq(oid("1.2.840.113549.1.1.11"), NULL), _rsa(hashes.SHA256()))
RSA_SHA384: Final = Algorithm(seq(oid("1.2.840.113549.1.1.12"), NULL), _rsa(hashes.SHA384()))
RSA_SHA512: Final = Algorithm(seq(oid("1.2.840.113549.1.1.13"), NULL), _rsa(hashes.SHA512()))
RSA_MD5: Final = Algorithm(seq(oid("1.2.840.113549.1.1.4"), NULL), _rsa(hashes.MD5()))  # refused by all
PSS_SHA256: Final = pss(SHA256, hashes.SHA256())
PSS_SHA384: Final = pss(SHA384, hashes.SHA384(), salt=48)
# The refused one; its parameters are all defaults, and so not encoded.
PSS_SHA1: Final = Algorithm(seq(oid("1.2.840.113549.1.1.10"), seq()), pss(SHA1, hashes.SHA1(), salt=20).sign)
ECDSA_SHA1: Final = Algorithm(seq(oid("1.2.840.10045.4.1")), _ecdsa(hashes.SHA1()))  # the refused one
ECDSA_SHA256: Final = Algorithm(seq(oid("1.2.840.10045.4.3.2")), _ecdsa(hashes.SHA256()))
ECDSA_SHA384: Final = Algorithm(seq(oid("1.2.840.10045.4.3.3")), _ecdsa(hashes.SHA384()))
ECDSA_SHA512: Final = Algorithm(seq(oid("1.2.840.10045.4.3.4")), _ecdsa(hashes.SHA512()))
ED25519: Final = Algorithm(seq(oid("1.3.101.112")), _edwards)
ED448: Final = Algorithm(seq(oid("1.3.101.113")), _edwards)
DSA_SHA256: Final = Algorithm(seq(oid("2.16.840.1.101.3.4.3.2")), _dsa)


def usual(key: PrivateKey) -> Algorithm:
    """Name the algorithm that is usual with a key."""
    match key:
        case rsa.RSAPrivateKey():
            return RSA_SHA256
        case ec.EllipticCurvePrivateKey() if key.key_size == 384:
            return ECDSA_SHA384
        case ec.EllipticCurvePrivateKey():
            return ECDSA_SHA256
        case ed25519.Ed25519PrivateKey():
            return ED25519
        case ed448.Ed448PrivateKey():
            return ED448
        case dsa.DSAPrivateKey():
            return DSA_SHA256


def resigned(
    certificate: x509.Certificate, by: Signer, algorithm: Algorithm, outer: bytes | None = None
) -> x509.Certificate:
    """Sign a certificate anew with an algorithm that `cryptography` no longer signs certificates with.

    `outer` stands in place of the algorithm outside of what is signed.
    """
    made = Certificate.load(certificate.public_bytes(Encoding.DER))
    made["tbs_certificate"]["signature"] = SignedDigestAlgorithm.load(algorithm.encoded)
    tbs = made["tbs_certificate"].dump(force=True)
    return x509.load_der_x509_certificate(
        seq(tbs, outer or algorithm.encoded, bits(algorithm.sign(by.key, tbs)))
    )


def retold(
    certificate: x509.Certificate,
    by: Signer,
    *,
    version: int = 2,
    serial: bytes | None = None,
    issuer: bytes | None = None,
    subject: bytes | None = None,
    key_info: bytes | None = None,
    extensions: tuple[bytes, ...] | None = None,
    algorithm: Algorithm | None = None,
    damage: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """Sign a certificate anew with fields (DER) that `cryptography` would not write; v1 is version 0."""
    said = Certificate.load(certificate.public_bytes(Encoding.DER))["tbs_certificate"]
    signed = algorithm or usual(by.key)
    kept = said["extensions"].dump() if extensions is None else explicit(3, seq(*extensions))
    tbs = seq(
        explicit(0, integer(version)) if version else b"",
        serial or said["serial_number"].dump(),
        signed.encoded,
        issuer or said["issuer"].dump(),
        said["validity"].dump(),
        subject or said["subject"].dump(),
        key_info or said["subject_public_key_info"].dump(),
        kept if version or extensions else b"",
    )
    return seq(tbs, signed.encoded, bits(damage(signed.sign(by.key, tbs))))


def key_info(certificate: x509.Certificate, algorithm: bytes) -> bytes:
    """Encode the SubjectPublicKeyInfo of a certificate with another AlgorithmIdentifier."""
    return seq(algorithm, bits(key_bits(certificate)))


# --- responses ---------------------------------------------------------------------------------


def key_bits(certificate: x509.Certificate) -> bytes:
    """Read the contents of the subjectPublicKey BIT STRING."""
    loaded = Certificate.load(certificate.public_bytes(Encoding.DER))
    return bytes(loaded["tbs_certificate"]["subject_public_key_info"]["public_key"])


def by_key(signer: Signer) -> bytes:
    """ResponderID byKey."""
    return explicit(2, octets(hashlib.sha1(key_bits(signer.certificate)).digest()))


def by_name(signer: Signer) -> bytes:
    """ResponderID byName."""
    loaded = Certificate.load(signer.certificate.public_bytes(Encoding.DER))
    return explicit(1, loaded["tbs_certificate"]["subject"].dump())


@dataclass(frozen=True, slots=True)
class CertId:
    """RFC 6960 section 4.1.1, CertID."""

    algorithm: bytes
    name_hash: bytes
    key_hash: bytes
    serial: bytes

    @classmethod
    def of(cls, leaf: x509.Certificate, issuer: x509.Certificate, digest: str = SHA1) -> CertId:
        """Compute the CertID of a leaf by hand (not by what is under test)."""
        hash_ = HASHES[digest]
        return cls(
            seq(oid(digest), NULL),
            hashlib.new(hash_, issuer.subject.public_bytes()).digest(),
            hashlib.new(hash_, key_bits(issuer)).digest(),
            integer(leaf.serial_number),
        )

    def der(self) -> bytes:
        """Encode it."""
        return seq(self.algorithm, octets(self.name_hash), octets(self.key_hash), self.serial)


@dataclass(frozen=True, slots=True)
class Entry:
    """RFC 6960 section 4.2.1, SingleResponse; `tail` stands after the last field."""

    cert_id: CertId
    status: bytes
    this_update: datetime | bytes
    next_update: datetime | bytes | None
    extensions: tuple[bytes, ...] | None = None
    tail: bytes = b""

    def der(self) -> bytes:
        """Encode it."""
        return seq(
            self.cert_id.der(),
            self.status,
            time(self.this_update),
            b"" if self.next_update is None else explicit(0, time(self.next_update)),
            b"" if self.extensions is None else explicit(1, seq(*self.extensions)),
            self.tail,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole OCSPResponse; each `tail_*` puts bytes after the last field of its level."""

    entry: Entry
    key: PrivateKey
    algorithm: Algorithm
    responder: bytes
    produced_at: datetime | bytes
    more: tuple[Entry, ...] = ()
    certs: tuple[bytes, ...] | None = None
    version: bytes = b""
    extensions: tuple[bytes, ...] | None = None
    status: bytes = enumerated(0)
    response_type: str = BASIC
    empty: bool = False
    unused_bits: int = 0
    damage: Callable[[bytes], bytes] = field(default=lambda signature: signature)
    tail_data: bytes = b""
    tail_basic: bytes = b""
    tail_octets: bytes = b""
    tail_bytes: bytes = b""
    tail_explicit: bytes = b""
    tail_response: bytes = b""
    tail: bytes = b""

    @classmethod
    def good(cls, pki: Pki, now: datetime, digest: str = SHA1) -> Answer:
        """Answer as the issuer itself an hour ago: good, for six days."""
        then = now - timedelta(hours=1)
        cert_id = CertId.of(pki.leaf.certificate, pki.issuer.certificate, digest)
        entry = Entry(cert_id, GOOD, then, now + timedelta(days=6))
        return cls(entry, pki.issuer.key, usual(pki.issuer.key), by_key(pki.issuer), then)

    @classmethod
    def delegated(cls, pki: Pki, now: datetime, delegate: Signer | None = None) -> Answer:
        """Answer the same, signed by a delegate whose certificate is enclosed."""
        signer = delegate or pki.delegate
        certificate = signer.certificate.public_bytes(Encoding.DER)
        good = cls.good(pki, now)
        return replace(
            good,
            key=signer.key,
            algorithm=usual(signer.key),
            responder=by_name(signer),
            certs=(certificate,),
        )

    def tbs(self) -> bytes:
        """Encode the ResponseData that is signed."""
        return seq(
            self.version,
            self.responder,
            time(self.produced_at),
            seq(*(b"" if self.empty else one.der() for one in (self.entry, *self.more))),
            b"" if self.extensions is None else explicit(1, seq(*self.extensions)),
            self.tail_data,
        )

    def der(self) -> bytes:
        """Encode and sign it."""
        tbs = self.tbs()
        basic = seq(
            tbs,
            self.algorithm.encoded,
            bits(self.damage(self.algorithm.sign(self.key, tbs)), self.unused_bits),
            b"" if self.certs is None else explicit(0, seq(*self.certs)),
            self.tail_basic,
        )
        response_bytes = seq(oid(self.response_type), octets(basic + self.tail_octets), self.tail_bytes)
        return (
            seq(self.status, explicit(0, response_bytes, self.tail_explicit), self.tail_response) + self.tail
        )
