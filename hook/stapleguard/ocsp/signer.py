"""Who signed a BasicOCSPResponse, and whether they may: steps 5 to 7 of the judge."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Final

from asn1crypto.x509 import Certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from stapleguard.finding import Code
from stapleguard.ocsp.answer import HOSTILE, SCHEMES, SHA1, Answer, Fault, Scheme

_STRONG_HASHES: Final = ("sha256", "sha384", "sha512")
_MIN_RSA_BITS: Final = 2048
_MIN_EC_BITS: Final = 256
# In a delegate: those that step 7 reads, and the two of RFC 5280 that bear on nothing it decides.
_DELEGATE_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.OCSP_NO_CHECK,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)


class Sha1(Enum):
    """What SHA-1 in a signature (of the response, of a delegate) means; in a CertID it is always fine."""

    REFUSED = "refused"
    ALLOWED = "allowed"


def question(
    leaf: x509.Certificate, issuer: x509.Certificate, algorithm: hashes.HashAlgorithm
) -> ocsp.OCSPRequest:
    """Build the OCSPRequest about `leaf`; its CertID is the one that an answer must repeat."""
    return ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, algorithm).build()


def named(answer: Answer, issuer: x509.Certificate) -> tuple[x509.Certificate, ...]:
    """Step 5: list the certificates that the responderID may mean."""
    enclosed = (certificate for certificate in answer.certificates if certificate != issuer)
    with warnings.catch_warnings(action="ignore"):
        return tuple(certificate for certificate in (issuer, *enclosed) if _is_named(answer, certificate))


def _is_named(answer: Answer, certificate: x509.Certificate) -> bool:
    try:
        if answer.responder_name is not None:
            return answer.responder_name == certificate.subject
        return answer.responder_key == question(certificate, certificate, SHA1).issuer_key_hash
    except HOSTILE:
        return False


def verifies(answer: Answer, certificate: x509.Certificate) -> bool:
    """Step 6: check the signature over tbsResponseData with the key of one certificate."""
    return _proves(certificate, answer.scheme, answer.signature, answer.tbs)


@lru_cache(maxsize=64)
def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the issuer's name stands in a certificate and its key signed it (RFC 5280 section 6.1.3).

    SHA-1 passes here: whether it may is a question of its own, and of a leaf it is never asked.
    The answer is remembered: every staple of a run asks the same of the same certificates.
    """
    try:
        scheme = SCHEMES.get(certificate.signature_algorithm_oid)
        if scheme is None or scheme.hash is not SHA1:
            certificate.verify_directly_issued_by(issuer)
            return True
        # `cryptography` verifies no certificate with SHA-1, so this does what it would do.
        read = Certificate.load(certificate.public_bytes(Encoding.DER))
        same = read["signature_algorithm"].dump() == read["tbs_certificate"]["signature"].dump()
        tbs = certificate.tbs_certificate_bytes
        return (
            same
            and certificate.issuer == issuer.subject
            and _proves(issuer, scheme, certificate.signature, tbs)
        )
    except HOSTILE:
        return False


def _proves(certificate: x509.Certificate, scheme: Scheme | None, signature: bytes, signed: bytes) -> bool:
    if scheme is None:
        return False
    try:
        key = certificate.public_key()
        if not isinstance(key, scheme.key):
            return False
        match key, scheme.hash:
            case rsa.RSAPublicKey(), hashes.HashAlgorithm() as digest:
                key.verify(signature, signed, scheme.pss or padding.PKCS1v15(), digest)
            case ec.EllipticCurvePublicKey(), hashes.HashAlgorithm() as digest:
                key.verify(signature, signed, ec.ECDSA(digest))
            case ((ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey()), None):
                key.verify(signature, signed)
            case _:
                return False
    except HOSTILE:
        return False
    return True


def signature_faults(
    answer: Answer, candidates: Iterable[x509.Certificate], proved: list[x509.Certificate], sha1: Sha1
) -> list[Fault]:
    """Step 6: say what is wrong with the signature, weak algorithms and keys included."""
    if answer.scheme is None:
        return [_weak(f"the response is signed with {answer.signed_with}, which clients do not accept")]
    faults = []
    if _is_weak_hash(answer.scheme.hash, sha1):
        faults.append(_weak(f"the response is signed with {answer.signed_with}"))
    if proved and (weakness := _weak_key(proved[0])):
        faults.append(_weak(f"the response is signed by {weakness}"))
    if candidates and not proved:
        why = f"the signature does not verify with the key of {answer.responder}"
        faults.append(
            Fault(
                Code.OCSP_BAD_SIGNATURE, why, {"responder": answer.responder, "algorithm": answer.signed_with}
            )
        )
    return faults


def _weak(message: str) -> Fault:
    return Fault(Code.OCSP_WEAK_SIGNATURE, message)


def _is_weak_hash(digest: hashes.HashAlgorithm | None, sha1: Sha1) -> bool:
    if digest is None or digest.name in _STRONG_HASHES:
        return False
    return not (digest.name == "sha1" and sha1 is Sha1.ALLOWED)


def _weak_key(certificate: x509.Certificate) -> str | None:
    try:
        key = certificate.public_key()
    except HOSTILE:
        return "a key that cannot be read"
    match key:
        case rsa.RSAPublicKey() if key.key_size < _MIN_RSA_BITS:
            return f"an RSA key of {key.key_size} bits"
        case ec.EllipticCurvePublicKey() if key.key_size < _MIN_EC_BITS:
            return f"a key on {key.curve.name}"
        case (
            rsa.RSAPublicKey()
            | ec.EllipticCurvePublicKey()
            | ed25519.Ed25519PublicKey()
            | ed448.Ed448PublicKey()
        ):
            return None
        case _:
            return "a key that clients do not accept"


def authority_faults(
    candidates: Iterable[x509.Certificate],
    answer: Answer,
    issuer: x509.Certificate,
    now: datetime,
    sha1: Sha1,
) -> tuple[Fault, ...]:
    """Step 7: say what speaks against the best candidate (one key may have several certificates)."""
    with warnings.catch_warnings(action="ignore"):
        judged = [tuple(_against(certificate, answer, issuer, now, sha1)) for certificate in candidates]
    if not judged:
        why = f"the responder {answer.responder} is neither the issuer nor a certificate in the response"
        return (Fault(Code.OCSP_UNAUTHORIZED_RESPONDER, why, {"responder": answer.responder}),)
    return min(judged, key=lambda faults: sum(fault.code is not Code.OCSP_NO_NOCHECK for fault in faults))


def _against(
    signer: x509.Certificate, answer: Answer, issuer: x509.Certificate, now: datetime, sha1: Sha1
) -> Iterable[Fault]:
    starts, ends = signer.not_valid_before_utc, signer.not_valid_after_utc
    if (
        signer == issuer and answer.produced_at < starts
    ):  # an issuer is no impostor: it is a date that is wrong
        yield Fault(Code.OCSP_NOT_YET_VALID, "producedAt lies before the life of the issuer's certificate")
    elif not starts <= answer.produced_at <= ends:
        yield _unauthorized(answer, "producedAt lies outside the life of the signer's certificate")
    if signer == issuer:
        return
    if not issued_by(signer, issuer):
        yield _unauthorized(answer, "the signer's certificate was not issued directly by the issuer's key")
        return
    try:
        extensions = signer.extensions
        digest = signer.signature_hash_algorithm
    except HOSTILE:
        yield _unauthorized(answer, "the signer's certificate cannot be read to the end")
        return
    if not starts <= now <= ends:
        yield _unauthorized(answer, "the signer's certificate is not in date")
    for why in _unfit(extensions):
        yield _unauthorized(answer, why)
    if _is_weak_hash(digest, sha1):
        yield _weak(f"the signer's certificate is signed with {digest.name if digest else 'nothing'}")
    if weakness := _weak_key(issuer):
        yield _weak(f"the signer's certificate is signed by {weakness}")
    if not any(extension.oid == ExtensionOID.OCSP_NO_CHECK for extension in extensions):
        yield Fault(Code.OCSP_NO_NOCHECK, "the signer's certificate does not carry id-pkix-ocsp-nocheck")


def _unauthorized(answer: Answer, why: str) -> Fault:
    return Fault(Code.OCSP_UNAUTHORIZED_RESPONDER, why, {"responder": answer.responder})


def _unfit(extensions: x509.Extensions) -> Iterable[str]:
    """Say why a certificate with these extensions is no delegate (4.2.2.2, RFC 5280 section 4.2.1)."""
    found = {extension.oid: extension for extension in extensions}
    constraints = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    if constraints and isinstance(constraints.value, x509.BasicConstraints) and constraints.value.ca:
        yield "the signer's certificate is a CA certificate"
    usage = found.get(ExtensionOID.KEY_USAGE)
    if (
        usage
        and isinstance(usage.value, x509.KeyUsage)
        and not (usage.value.digital_signature or usage.value.content_commitment)
    ):
        yield "the keyUsage of the signer's certificate allows neither digitalSignature nor nonRepudiation"
    purposes = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    named = purposes.value if purposes and isinstance(purposes.value, x509.ExtendedKeyUsage) else ()
    if ExtendedKeyUsageOID.OCSP_SIGNING not in named:
        yield "the signer's certificate does not name id-kp-OCSPSigning"
    for extension in extensions:
        if extension.critical and extension.oid not in _DELEGATE_EXTENSIONS:
            yield f"the signer's certificate has the unknown critical extension {extension.oid.dotted_string}"
