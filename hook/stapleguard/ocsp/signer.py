"""Who signed a BasicOCSPResponse, and whether they may: steps 5 to 7 of the judge."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, PublicKeyAlgorithmOID

from stapleguard.finding import Code
from stapleguard.ocsp.answer import HASHES, HOSTILE, Answer, Fault, Pss, ResponderId, Scheme, pss, scheme_of
from stapleguard.ocsp.certificate import encoded_fields, remember

# Of one signer there are two or three certificates; hundreds are there to make us try hundreds of keys.
_MAX_MEANT: Final = 16
_STRONG_HASHES: Final = ("sha256", "sha384", "sha512")
_MIN_RSA_BITS: Final = 2048
_MIN_RSA_EXPONENT: Final = 3
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


@remember
def cert_id(leaf: x509.Certificate, issuer: x509.Certificate, algorithm: str) -> tuple[bytes, bytes, int]:
    """Compute issuerNameHash, issuerKeyHash and serialNumber of the CertID of `leaf` (4.1.1).

    `algorithm` is a name in HASHES.
    """
    asked = question(leaf, issuer, HASHES[algorithm])
    return asked.issuer_name_hash, asked.issuer_key_hash, asked.serial_number


@remember
def must_staple(leaf: x509.Certificate) -> bool:
    """Tell whether the certificate demands status_request (RFC 7633)."""
    try:
        features = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except (x509.ExtensionNotFound, *HOSTILE):
        return False
    return x509.TLSFeatureType.status_request in features


def named(answer: Answer, issuer: x509.Certificate) -> tuple[x509.Certificate, ...]:
    """Step 5: list the certificates that the responderID may mean, each once, and no crowd of them."""
    certificates = dict.fromkeys((issuer, *answer.certificates))
    meant = (one for one in certificates if _is_named(answer.responder_id, one))
    return tuple(islice(meant, _MAX_MEANT))


def _is_named(responder_id: ResponderId, certificate: x509.Certificate) -> bool:
    encoded = encoded_fields(certificate)
    if responder_id.key_hash is not None:
        return responder_id.key_hash == hashlib.sha1(encoded.key, usedforsecurity=False).digest()
    if responder_id.name == encoded.subject:
        return True
    # One string may be encoded in several ways (RFC 5280 section 7.1).
    with warnings.catch_warnings(action="ignore"):
        try:
            return responder_id.decoded == certificate.subject
        except HOSTILE:
            return False


def verifies(answer: Answer, certificate: x509.Certificate) -> bool:
    """Step 6: check the signature over tbsResponseData with the key of one certificate."""
    return _proves(certificate, answer.scheme, answer.signature, answer.tbs)


@remember
def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the issuer's name stands in a certificate and its key signed it (RFC 5280 section 6.1.3).

    SHA-1 passes here: whether it may is a question of its own, and of a leaf it is never asked.
    """
    encoded = encoded_fields(certificate)
    if encoded.issuer != encoded_fields(issuer).subject or encoded.inner_algorithm != encoded.outer_algorithm:
        return False
    try:
        scheme = scheme_of(certificate.signature_algorithm_oid, encoded.parameters)
        if scheme is None:  # none of ours, but `cryptography` may know it
            certificate.verify_directly_issued_by(issuer)
            return True
    except HOSTILE:
        return False
    return _proves(issuer, scheme, certificate.signature, certificate.tbs_certificate_bytes)


def _proves(certificate: x509.Certificate, scheme: Scheme | None, signature: bytes, signed: bytes) -> bool:
    if scheme is None:
        return False
    try:
        key = certificate.public_key()
        fits = isinstance(key, scheme.key) and _is_sound(key) and _key_allows(certificate, scheme)
        match key, scheme.hash:
            case rsa.RSAPublicKey(), hashes.HashAlgorithm() as digest if fits:
                key.verify(signature, signed, _padding(scheme.pss), digest)
            case ec.EllipticCurvePublicKey(), hashes.HashAlgorithm() as digest if fits:
                key.verify(signature, signed, ec.ECDSA(digest))
            case ((ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey()), None) if fits:
                key.verify(signature, signed)
            case _:
                return False
    except HOSTILE:
        return False
    return True


def _is_sound(key: CertificatePublicKeyTypes) -> bool:
    """Tell whether a key can prove anything: with an RSA exponent of 1 the signature is its own padding.

    Not every `cryptography` refuses such a key.
    """
    return not isinstance(key, rsa.RSAPublicKey) or key.public_numbers().e >= _MIN_RSA_EXPONENT


def _padding(parameters: Pss | None) -> padding.PSS | padding.PKCS1v15:
    if parameters is None:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(parameters.mask), parameters.salt)


def _key_allows(certificate: x509.Certificate, scheme: Scheme) -> bool:
    """Tell whether a key that is tied to RSASSA-PSS was used so (RFC 4055 sections 1.2 and 3.3).

    `cryptography` reads such a key as one that may do anything.
    """
    if certificate.public_key_algorithm_oid != PublicKeyAlgorithmOID.RSASSA_PSS:
        return True
    if scheme.pss is None:
        return False
    parameters = encoded_fields(certificate).key_parameters
    if parameters is None:
        return True
    tied = pss(parameters)
    if tied is None or tied.pss is None:
        return False
    same = (tied.hash, tied.pss.mask) == (scheme.hash, scheme.pss.mask)
    return same and scheme.pss.salt >= tied.pss.salt


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
    match key := certificate.public_key():
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
) -> tuple[x509.Certificate | None, tuple[Fault, ...]]:
    """Step 7: choose the fittest candidate (one key may have several certificates); say what it lacks."""
    judged = [(one, tuple(_against(one, answer, issuer, now, sha1))) for one in candidates]
    if not judged:
        why = f"the responder {answer.responder} is neither the issuer nor a certificate in the response"
        return None, (_unauthorized(answer, why),)
    return min(judged, key=lambda pair: sum(fault.code is not Code.OCSP_NO_NOCHECK for fault in pair[1]))


def _against(
    signer: x509.Certificate, answer: Answer, issuer: x509.Certificate, now: datetime, sha1: Sha1
) -> Iterable[Fault]:
    starts, ends = signer.not_valid_before_utc, signer.not_valid_after_utc
    if signer == issuer:  # is no impostor and has no delegate's duties; only a date can be wrong
        if answer.produced_at < starts:
            yield Fault(
                Code.OCSP_NOT_YET_VALID, "producedAt lies before the life of the issuer's certificate"
            )
        elif answer.produced_at > ends:
            yield _unauthorized(answer, "producedAt lies after the life of the issuer's certificate")
        return
    if not starts <= answer.produced_at <= ends:
        yield _unauthorized(answer, "producedAt lies outside the life of the signer's certificate")
    if not issued_by(signer, issuer):
        yield _unauthorized(answer, "the signer's certificate was not issued directly by the issuer's key")
        return
    delegate = _as_delegate(signer)
    if delegate is None:
        yield _unauthorized(answer, "the signer's certificate cannot be read to the end")
        return
    if not starts <= now <= ends:
        yield _unauthorized(answer, "the signer's certificate is not in date")
    for why in delegate.unfit:
        yield _unauthorized(answer, why)
    if _is_weak_hash(delegate.signed_with, sha1):
        hash_ = delegate.signed_with.name if delegate.signed_with else "nothing"
        yield _weak(f"the signer's certificate is signed with {hash_}")
    if weakness := _weak_key(issuer):
        yield _weak(f"the signer's certificate is signed by {weakness}")
    if not delegate.nocheck:
        yield Fault(Code.OCSP_NO_NOCHECK, "the signer's certificate does not carry id-pkix-ocsp-nocheck")


def _unauthorized(answer: Answer, why: str) -> Fault:
    return Fault(Code.OCSP_UNAUTHORIZED_RESPONDER, why, {"responder": answer.responder})


@dataclass(frozen=True, slots=True)
class _Delegate:
    """What a certificate says of itself that bears on its being a delegate."""

    unfit: tuple[str, ...]
    signed_with: hashes.HashAlgorithm | None
    nocheck: bool


@remember
def _as_delegate(certificate: x509.Certificate) -> _Delegate | None:
    """Read a certificate as a delegate's; None when it is not v3, or its extensions cannot be read.

    Only v3 has extensions (RFC 5280 section 4.1.2.1); in an enclosed certificate `cryptography` takes any.
    """
    with warnings.catch_warnings(action="ignore"):
        try:
            if certificate.version is not x509.Version.v3:
                return None
            extensions = certificate.extensions
            signed_with = certificate.signature_hash_algorithm
        except HOSTILE:
            return None
    nocheck = any(extension.oid == ExtensionOID.OCSP_NO_CHECK for extension in extensions)
    return _Delegate(tuple(_unfit(extensions)), signed_with, nocheck)


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
