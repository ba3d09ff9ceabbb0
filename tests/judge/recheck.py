"""The main invariants of an accepted answer, checked again by another parser and in another way.

It reads with asn1crypto's own types and hashes with hashlib, shares no code with the judge, and knows
only what must never be accepted: it is no second judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta

from asn1crypto import ocsp as asn1
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

STRONG = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
SKEW = timedelta(minutes=5)
HARMLESS = {"nonce", "extended_revoke", "crl", "archive_cutoff", "signed_certificate_timestamp_list"}


def recheck(der: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> Iterator[str]:
    """Name every invariant that an accepted answer breaks (RSASSA-PSS is not tried)."""
    response = asn1.OCSPResponse.load(der, strict=True)
    if response["response_status"].native != "successful":
        yield "it is not successful"
        return
    basic = response.basic_ocsp_response
    data = basic["tbs_response_data"]
    if data["version"].native != "v1":
        yield "it is not v1"
    matching = [entry for entry in data["responses"] if _is_about(entry["cert_id"], leaf, issuer)]
    if not matching:
        yield "no entry is about the certificate"
    for entry in matching:
        yield from _entry(entry, data["produced_at"].native, now)
    for entry in (data, *matching):
        field = "response_extensions" if entry is data else "single_extensions"
        for extension in entry[field] or ():
            if extension["critical"].native and extension["extn_id"].native not in HARMLESS:
                yield f"critical extension {extension['extn_id'].native}"
    yield from _signer(basic, data.dump(), issuer, now, data["produced_at"].native)


def _is_about(cert_id: asn1.CertId, leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    hash_ = cert_id["hash_algorithm"]["algorithm"].native
    if hash_ not in {"sha1", "sha256", "sha384", "sha512"}:
        return False
    said = asn1_x509.Certificate.load(issuer.public_bytes(Encoding.DER))["tbs_certificate"]
    key = bytes(said["subject_public_key_info"]["public_key"])
    name = hashlib.new(hash_, said["subject"].dump()).digest()
    return (
        cert_id["serial_number"].native == leaf.serial_number
        and cert_id["issuer_name_hash"].native == name
        and cert_id["issuer_key_hash"].native == hashlib.new(hash_, key).digest()
    )


def _entry(entry: asn1.SingleResponse, produced_at: datetime, now: datetime) -> Iterator[str]:
    if entry["cert_status"].name != "good":
        yield f"it says {entry['cert_status'].name}"
    this, next_ = entry["this_update"].native, entry["next_update"].native
    if this > now + SKEW or produced_at > now + SKEW or produced_at < this:
        yield "it is from the future, or older than what it says"
    if next_ is None and now - this > timedelta(days=7):
        yield "it is too old"
    if next_ is not None and next_ <= now:
        yield "it is over"


def _signer(
    basic: asn1.BasicOCSPResponse, tbs: bytes, issuer: x509.Certificate, now: datetime, produced_at: datetime
) -> Iterator[str]:
    algorithm, signature = basic["signature_algorithm"]["algorithm"].native, basic["signature"].native
    certificates = [certificate for one in basic["certs"] or () for certificate in _loaded(one.dump())]
    proved = [one for one in (issuer, *certificates) if _proves(one, algorithm, signature, tbs)]
    if not any(one == issuer or _is_delegate(one, issuer, now, produced_at) for one in proved):
        yield f"nobody who may sign has signed it, with {algorithm}"


def _loaded(der: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return (x509.load_der_x509_certificate(der),)
    except (ValueError, x509.InvalidVersion):
        return ()  # harmless where nobody needs it, and unable to prove anything


def _proves(certificate: x509.Certificate, algorithm: str, signature: bytes, tbs: bytes) -> bool:
    hash_ = STRONG.get(algorithm.partition("_")[0])
    try:
        match certificate.public_key():
            case ec.EllipticCurvePublicKey() as key if key.key_size >= 256 and algorithm.endswith("_ecdsa"):
                key.verify(signature, tbs, ec.ECDSA(hash_))
            case rsa.RSAPublicKey() as key if key.key_size >= 2048 and algorithm.endswith("_rsa"):
                key.verify(signature, tbs, padding.PKCS1v15(), hash_)
            case (ed448.Ed448PublicKey() | ed25519.Ed25519PublicKey()) as key if algorithm.startswith("ed"):
                key.verify(signature, tbs)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _is_delegate(
    certificate: x509.Certificate, issuer: x509.Certificate, now: datetime, produced_at: datetime
) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, InvalidSignature, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    if certificate.version is not x509.Version.v3:
        return False
    known = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.OCSPNoCheck)
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return False
        harmless = (*known, x509.SubjectAlternativeName, x509.CertificatePolicies)
        if extension.critical and not isinstance(extension.value, harmless):
            return False
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    in_date = starts <= now <= ends and starts <= produced_at <= ends
    return in_date and ExtendedKeyUsageOID.OCSP_SIGNING in purposes
