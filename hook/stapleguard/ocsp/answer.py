"""A BasicOCSPResponse read out of hostile bytes: steps 1 to 3 of the judge.

Strict DER is the work of `cryptography`; what it reads over (the version, the criticality of
extensions, unused bits, the parameters of algorithms, the bytes that were signed) is taken from
`asn1crypto`. Nothing here judges more than form.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from asn1crypto.algos import RSASSAPSSParams, SignedDigestAlgorithmId
from asn1crypto.core import ObjectIdentifier
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtensionOID, OCSPExtensionOID, SignatureAlgorithmOID

from stapleguard.finding import Code
from stapleguard.model import CertStatus, Json, Severity, escape
from stapleguard.ocsp.certificate import check_name, check_names
from stapleguard.ocsp.der import Element, elements

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


@dataclass(frozen=True, slots=True)
class Pss:
    """The parameters of RSASSA-PSS beside its hash: the hash of MGF1, and the octets of salt."""

    mask: hashes.HashAlgorithm
    salt: int


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature algorithm that this judge can verify; `pss` is set for RSASSA-PSS."""

    hash: hashes.HashAlgorithm | None
    key: type[rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey]
    pss: Pss | None = None


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

SHA1: Final = hashes.SHA1()  # noqa: S303 named here so that it can be refused
HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    one.name: one for one in (SHA1, hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}
"""Of a CertID (recomputed; SHA-1 is fine there, nothing rests on its strength) and of RSASSA-PSS."""
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
_MAX_PSS_SALT: Final = 512
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
class ResponderId:
    """Who says that they signed (4.2.2.3): a Name, or the SHA-1 of a key; the other is None.

    `name` is the DER of the Name. `decoded` is None also where a string in it is not what its tag
    says (Latin-1 as T61String, as old authorities write it): such a name is compared as bytes only.
    """

    name: bytes | None
    decoded: x509.Name | None
    key_hash: bytes | None

    def __str__(self) -> str:
        """Write it for people: RFC 4514, or hexadecimal; safe to print, at most 256 characters."""
        if self.decoded is not None:
            return escape(self.decoded.rfc4514_string())
        return escape((self.name or self.key_hash or b"").hex())


@dataclass(frozen=True, slots=True)
class Answer:
    """A BasicOCSPResponse, every field of it that a rule needs; `tbs` is what was signed, as received."""

    tbs: bytes
    signature: bytes
    algorithm: x509.ObjectIdentifier
    scheme: Scheme | None
    certificates: tuple[x509.Certificate, ...]
    responder_id: ResponderId
    responder: str
    produced_at: datetime
    entries: tuple[Entry, ...]
    unknown_critical: tuple[str, ...]

    @property
    def signed_with(self) -> str:
        """The signature algorithm for people."""
        return escape(str(SignedDigestAlgorithmId(self.algorithm.dotted_string).native))


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
    oid = response.signature_algorithm_oid
    scheme = scheme_of(oid, body.parameters)
    # Only RSA's have parameters (RFC 4055 section 5, RFC 5758 section 3.2, RFC 8410 section 3).
    bare = scheme is not None and scheme.key is not rsa.RSAPublicKey
    broken = {
        "the version is not v1": body.has_version,  # v1 is the DEFAULT, and must not be encoded
        "the signature is not a whole number of octets": body.unused_bits > 0,
        "the parameters of the signature algorithm are not absent": bare and body.parameters is not None,
    }
    for why, is_so in broken.items():
        if is_so:
            raise ValueError(why)
    responder_id = _responder_id(response, body.responder)
    certificates = tuple(response.certificates)
    for certificate in certificates:
        check_names(certificate)
    return Answer(
        tbs=body.tbs,
        signature=response.signature,
        algorithm=oid,
        scheme=scheme,
        certificates=certificates,
        responder_id=responder_id,
        responder=str(responder_id),
        produced_at=response.produced_at_utc,
        entries=tuple(map(_entry, response.responses, body.entry_extensions)),
        unknown_critical=_unknown_critical(body.extensions, _RESPONSE_EXTENSIONS),
    )


@dataclass(frozen=True, slots=True)
class _Body:
    """What `cryptography` does not show; extensions are None when absent."""

    tbs: bytes
    has_version: bool
    unused_bits: int
    responder: bytes
    parameters: bytes | None
    extensions: list[Element] | None
    entry_extensions: tuple[list[Element] | None, ...]


def _body(der: bytes) -> _Body:
    """Walk down a response that has already passed as strict DER of the right types."""
    (whole,) = elements(der)
    _, response_bytes = elements(whole.contents)
    _, octets = elements(elements(response_bytes.contents)[0].contents)
    (basic,) = elements(octets.contents)
    data, algorithm, signature, *_ = elements(basic.contents)
    responder, _, entries, *extensions = elements(data.contents)
    _, *parameters = elements(algorithm.contents)
    return _Body(
        tbs=data.encoded,
        has_version=responder.tag == 0,
        unused_bits=signature.contents[0],
        responder=responder.contents,
        parameters=parameters[0].encoded if parameters else None,
        extensions=_list(extensions),
        # cert_id, cert_status, this_update, then [0] next_update and [1] single_extensions
        entry_extensions=tuple(
            _list([one for one in elements(entry.contents)[3:] if one.tag == 1])
            for entry in elements(entries.contents)
        ),
    )


def _list(explicit: list[Element]) -> list[Element] | None:
    return elements(elements(explicit[0].contents)[0].contents) if explicit else None


def _responder_id(response: ocsp.OCSPResponse, encoded: bytes) -> ResponderId:
    key_hash = response.responder_key_hash
    if key_hash is not None:
        if len(key_hash) != SHA1.digest_size:
            raise ValueError("the KeyHash of the responderID is not a SHA-1 value")
        return ResponderId(None, None, key_hash)
    check_name(encoded)
    try:
        return ResponderId(encoded, response.responder_name, None)
    except HOSTILE:
        return ResponderId(encoded, None, None)


def scheme_of(oid: x509.ObjectIdentifier, parameters: bytes | None) -> Scheme | None:
    """Read an AlgorithmIdentifier (`parameters` in DER, None = absent); None when we cannot verify it."""
    return pss(parameters) if oid == SignatureAlgorithmOID.RSASSA_PSS else SCHEMES.get(oid)


def pss(parameters: bytes | None) -> Scheme | None:
    """RSASSA-PSS by its parameters (RFC 4055 section 3.1); None when they are outside what is accepted."""
    if parameters is None:
        return None  # a signature must have them
    read = RSASSAPSSParams.load(parameters).native
    digest = HASHES.get(read["hash_algorithm"]["algorithm"])
    mask = read["mask_gen_algorithm"]
    masked = HASHES.get(mask["parameters"]["algorithm"]) if mask["algorithm"] == "mgf1" else None
    salt = read["salt_length"]
    if digest is None or masked is None or not 0 <= salt <= _MAX_PSS_SALT:
        return None
    if read["trailer_field"] != "trailer_field_bc":
        return None
    return Scheme(digest, rsa.RSAPublicKey, Pss(masked, salt))


def _unknown_critical(extensions: list[Element] | None, known: frozenset[str]) -> tuple[str, ...]:
    """List critical extensions that are not in `known`; RFC 5280 section 4.2: one or more, each once."""
    if extensions is None:
        return ()
    if not extensions:
        raise ValueError("the list of extensions is empty")
    read = [elements(extension.contents) for extension in extensions]
    if len({fields[0].contents for fields in read}) != len(read):
        raise ValueError("an extension occurs twice")
    # FALSE is the DEFAULT and not encoded: extnID, critical, extnValue are three fields only when it is TRUE.
    critical = (fields[0].encoded for fields in read if len(fields) == _CRITICAL_FIELDS)
    named = (ObjectIdentifier.load(oid).dotted for oid in critical)
    return tuple(oid for oid in named if oid not in known)


def _entry(single: ocsp.OCSPSingleResponse, extensions: list[Element] | None) -> Entry:
    try:
        algorithm = HASHES.get(single.hash_algorithm.name)
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
