"""A BasicOCSPResponse read out of hostile bytes: steps 1 to 3 of the judge.

Strict DER is the work of `cryptography`; what it reads over (the version, the criticality of
extensions, unused bits, the parameters of algorithms) is taken from `asn1crypto`. Nothing here
judges more than form.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from asn1crypto import parser
from asn1crypto.algos import RSASSAPSSParams, SignedDigestAlgorithmId
from asn1crypto.core import ObjectIdentifier
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtensionOID, OCSPExtensionOID, SignatureAlgorithmOID

from stapleguard.finding import Code
from stapleguard.model import CertStatus, Json, Severity, escape

MAX_RESPONSE: Final = 65536
"""Bytes; a larger response is refused unread."""

HOSTILE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""Everything that the two libraries are known to raise on hostile bytes."""

_KEY_HASH_OCTETS: Final = 20


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature algorithm that this judge can verify; `pss` is set for RSASSA-PSS."""

    hash: hashes.HashAlgorithm | None
    key: type[rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey]
    pss: padding.PSS | None = None


_STATUS: Final = {
    ocsp.OCSPCertStatus.GOOD: CertStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED: CertStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN: CertStatus.UNKNOWN,
}
_REFUSALS: Final = {
    ocsp.OCSPResponseStatus.MALFORMED_REQUEST: (Code.OCSP_MALFORMED_REQUEST, "malformedRequest (1)"),
    ocsp.OCSPResponseStatus.INTERNAL_ERROR: (Code.OCSP_INTERNAL_ERROR, "internalError (2)"),
    ocsp.OCSPResponseStatus.TRY_LATER: (Code.OCSP_TRY_LATER, "tryLater (3)"),
    ocsp.OCSPResponseStatus.SIG_REQUIRED: (Code.OCSP_SIG_REQUIRED, "sigRequired (5)"),
    ocsp.OCSPResponseStatus.UNAUTHORIZED: (Code.OCSP_UNAUTHORIZED, "unauthorized (6)"),
}

# CertID hashes that are recomputed; SHA-1 is fine there, nothing rests on its strength.
_CERT_ID_HASHES: Final = ("sha1", "sha256", "sha384", "sha512")

SHA1: Final = hashes.SHA1()  # noqa: S303 named here so that it can be refused
SCHEMES: Final[Mapping[x509.ObjectIdentifier, Scheme]] = {
    SignatureAlgorithmOID.RSA_WITH_SHA1: Scheme(SHA1, rsa.RSAPublicKey),
    SignatureAlgorithmOID.RSA_WITH_SHA256: Scheme(hashes.SHA256(), rsa.RSAPublicKey),
    SignatureAlgorithmOID.RSA_WITH_SHA384: Scheme(hashes.SHA384(), rsa.RSAPublicKey),
    SignatureAlgorithmOID.RSA_WITH_SHA512: Scheme(hashes.SHA512(), rsa.RSAPublicKey),
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: Scheme(SHA1, ec.EllipticCurvePublicKey),
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: Scheme(hashes.SHA256(), ec.EllipticCurvePublicKey),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: Scheme(hashes.SHA384(), ec.EllipticCurvePublicKey),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: Scheme(hashes.SHA512(), ec.EllipticCurvePublicKey),
    SignatureAlgorithmOID.ED25519: Scheme(None, ed25519.Ed25519PublicKey),
    SignatureAlgorithmOID.ED448: Scheme(None, ed448.Ed448PublicKey),
}
_PSS_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "sha1": SHA1,
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_MAX_PSS_SALT: Final = 512

# Of the tuple that asn1crypto.parser.parse returns.
_TAG: Final = 2
_CONTENTS: Final = 4
_CRITICAL_FIELDS: Final = 3

# Critical extensions that ask nothing of the reader of a staple. RFC 6960: the nonce binds to a
# request that was not ours, and extended-revoke speaks of certificates never issued; CRL references
# and archive cutoff only inform. RFC 6962 section 3.3: the SCT list is another rule's matter. The
# CRL entry extensions of 4.4.5 are not here: marked critical they could change what the entry means.
_RESPONSE_EXTENSIONS: Final = frozenset({OCSPExtensionOID.NONCE.dotted_string, "1.3.6.1.5.5.7.48.1.9"})
_ENTRY_EXTENSIONS: Final = frozenset(
    {"1.3.6.1.5.5.7.48.1.3", "1.3.6.1.5.5.7.48.1.6", ExtensionOID.SIGNED_CERTIFICATE_TIMESTAMPS.dotted_string}
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule, before it becomes a finding about a subject."""

    code: Code
    message: str
    evidence: Mapping[str, Json] = field(default_factory=dict)
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A SingleResponse; `algorithm` is None when its CertID hash is none that we compute."""

    algorithm: hashes.HashAlgorithm | None
    cert_id: tuple[bytes, bytes, int]
    status: CertStatus
    this_update: datetime
    next_update: datetime | None
    revoked_at: datetime | None
    reason: str | None
    unknown_critical: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A BasicOCSPResponse, every field of it that a rule needs."""

    tbs: bytes
    signature: bytes
    algorithm: x509.ObjectIdentifier
    scheme: Scheme | None
    certificates: tuple[x509.Certificate, ...]
    responder_name: x509.Name | None
    responder_key: bytes | None
    produced_at: datetime
    entries: tuple[Entry, ...]
    unknown_critical: tuple[str, ...]

    @property
    def signed_with(self) -> str:
        """The signature algorithm for people."""
        return escape(str(SignedDigestAlgorithmId(self.algorithm.dotted_string).native))

    @property
    def responder(self) -> str:
        """The responderID for people."""
        if self.responder_name is not None:
            return escape(self.responder_name.rfc4514_string())
        return (self.responder_key or b"").hex()


def form(der: bytes) -> ocsp.OCSPResponse | Fault:
    """Step 1: parse the outermost form, strict DER throughout."""
    if len(der) > MAX_RESPONSE:
        return Fault(
            Code.RESPONDER_TOO_LARGE,
            f"the response is {len(der)} bytes long; no more than {MAX_RESPONSE} are read",
            {"bytes": len(der)},
        )
    try:
        return ocsp.load_der_ocsp_response(der)
    except HOSTILE as error:
        return _malformed(error)


def _malformed(error: Exception) -> Fault:
    why = escape(str(error) or type(error).__name__)
    return Fault(
        Code.OCSP_MALFORMED, f"the response is not a strict DER OCSP response: {why}", {"error": why}
    )


def response_status(response: ocsp.OCSPResponse) -> Fault | None:
    """Step 2: name the responder's own refusal, if it is one."""
    if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
        return None
    code, shown = _REFUSALS[response.response_status]
    return Fault(code, f"the responder answers {shown}", {"response_status": response.response_status.value})


def basic_response(der: bytes, response: ocsp.OCSPResponse) -> Answer | Fault:
    """Step 3: read the BasicOCSPResponse, every field before any rule is applied."""
    # Hostile names draw warnings out of `cryptography`; under -W error those would be exceptions.
    with warnings.catch_warnings(action="ignore"):
        try:
            return _read(der, response)
        except HOSTILE as error:
            return _malformed(error)


def _read(der: bytes, response: ocsp.OCSPResponse) -> Answer:
    body = _body(der)
    if response.responder_key_hash is not None and len(response.responder_key_hash) != _KEY_HASH_OCTETS:
        raise ValueError("the KeyHash of the responderID is not a SHA-1 value")
    oid = response.signature_algorithm_oid
    scheme = SCHEMES.get(oid)
    if oid == SignatureAlgorithmOID.RSASSA_PSS:
        scheme = _pss(body.parameters)
    elif body.parameters is not None and scheme is not None and scheme.key is not rsa.RSAPublicKey:
        # RFC 5758 section 3.2, RFC 8410 section 3.
        raise ValueError("the parameters of the signature algorithm are not absent")
    return Answer(
        tbs=response.tbs_response_bytes,
        signature=response.signature,
        algorithm=oid,
        scheme=scheme,
        certificates=tuple(response.certificates),
        responder_name=response.responder_name,
        responder_key=response.responder_key_hash,
        produced_at=response.produced_at_utc,
        entries=tuple(map(_entry, response.responses, body.entry_extensions)),
        unknown_critical=_unknown_critical(body.extensions, _RESPONSE_EXTENSIONS),
    )


@dataclass(frozen=True, slots=True)
class _Body:
    """What `cryptography` does not show: extensions (DER of each; None = absent), algorithm parameters."""

    parameters: bytes | None
    extensions: tuple[bytes, ...] | None
    entry_extensions: tuple[tuple[bytes, ...] | None, ...]


def _body(der: bytes) -> _Body:
    """Walk down a response that has already passed as strict DER of the right types."""
    _, response_bytes = _inside(der)
    _, response = _inside(_inside(response_bytes)[0])
    data, algorithm, signature, *_ = _inside(parser.parse(response)[_CONTENTS])
    responder, _, entries, *extensions = _inside(data)
    if parser.parse(responder)[_TAG] == 0:  # [0] version: v1 is the DEFAULT and must not be encoded
        raise ValueError("the version is not v1")
    if parser.parse(signature)[_CONTENTS][:1] != b"\0":
        raise ValueError("the signature is not a whole number of octets")
    _, *parameters = _inside(algorithm)
    return _Body(
        parameters=parameters[0] if parameters else None,
        extensions=_list(extensions),
        # cert_id, cert_status, this_update, then [0] next_update and [1] single_extensions
        entry_extensions=tuple(
            _list([one for one in _inside(entry)[3:] if parser.parse(one)[_TAG] == 1])
            for entry in _inside(entries)
        ),
    )


def _inside(encoded: bytes) -> list[bytes]:
    """Split the contents of one constructed element into whole elements."""
    contents = parser.parse(encoded)[_CONTENTS]
    elements = []
    while contents:
        size = parser.peek(contents)
        elements.append(contents[:size])
        contents = contents[size:]
    return elements


def _list(explicit: list[bytes]) -> tuple[bytes, ...] | None:
    return tuple(_inside(_inside(explicit[0])[0])) if explicit else None


def _pss(parameters: bytes | None) -> Scheme | None:
    """RSASSA-PSS by its parameters (RFC 4055 section 3.1); None when they are outside what is accepted."""
    if parameters is None:
        return None  # the defaults: SHA-1
    read = RSASSAPSSParams.load(parameters).native
    digest = _PSS_HASHES.get(read["hash_algorithm"]["algorithm"])
    mask = read["mask_gen_algorithm"]
    masked = _PSS_HASHES.get(mask["parameters"]["algorithm"]) if mask["algorithm"] == "mgf1" else None
    salt = read["salt_length"]
    if digest is None or masked is None or not 0 <= salt <= _MAX_PSS_SALT:
        return None
    if read["trailer_field"] != "trailer_field_bc":
        return None
    return Scheme(digest, rsa.RSAPublicKey, padding.PSS(padding.MGF1(masked), salt))


def _unknown_critical(extensions: tuple[bytes, ...] | None, known: frozenset[str]) -> tuple[str, ...]:
    """List critical extensions that are not in `known`; RFC 5280 section 4.2: one or more, each once."""
    if extensions is None:
        return ()
    if not extensions:
        raise ValueError("the list of extensions is empty")
    read = [_inside(extension) for extension in extensions]
    if len({fields[0] for fields in read}) != len(read):
        raise ValueError("an extension occurs twice")
    # FALSE is the DEFAULT and not encoded: extnID, critical, extnValue are three fields only when it is TRUE.
    critical = [ObjectIdentifier.load(fields[0]).dotted for fields in read if len(fields) == _CRITICAL_FIELDS]
    return tuple(oid for oid in critical if oid not in known)


def _entry(single: ocsp.OCSPSingleResponse, extensions: tuple[bytes, ...] | None) -> Entry:
    try:
        algorithm = single.hash_algorithm if single.hash_algorithm.name in _CERT_ID_HASHES else None
    except UnsupportedAlgorithm:
        algorithm = None
    try:
        reason = single.revocation_reason
    except ValueError:  # a number that RFC 5280 section 5.3.1 leaves out; revoked is revoked
        reason = None
    return Entry(
        algorithm=algorithm,
        cert_id=(single.issuer_name_hash, single.issuer_key_hash, single.serial_number),
        status=_STATUS[single.certificate_status],
        this_update=single.this_update_utc,
        next_update=single.next_update_utc,
        revoked_at=single.revocation_time_utc,
        reason=reason.value if reason else None,
        unknown_critical=_unknown_critical(extensions, _ENTRY_EXTENSIONS),
    )
