"""One certificate looked at: what it says, which names it covers, who issued it.

Nothing here raises, whatever a certificate holds: what cannot be decoded counts as absent.
"""

from __future__ import annotations

import hashlib
import ipaddress
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import AuthorityInformationAccessOID
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)

from stapleguard.model import KeyType, LeafFacts, escape

_SERVER_KEYS: Final = (
    rsa.RSAPublicKey,
    ec.EllipticCurvePublicKey,
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
)
SERVER_KEY_NAMES: Final = "RSA, ECDSA, Ed25519 or Ed448"

# What cryptography raises when it meets a structure or an algorithm that it does not take.
REFUSALS: Final = (
    ValueError,
    TypeError,
    KeyError,  # an unknown number in a TLS feature extension
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

# Stands for "any single label" when a wildcard is the subject; only presented wildcards are asked.
_ANY_LABEL: Final = "any-single-label"

_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)


class NameMatch(Enum):
    """Whether a certificate covers a name (RFC 9525)."""

    MATCHES = "matches"
    DIFFERS = "differs"


def leaf_facts(certificate: x509.Certificate) -> LeafFacts:
    """Return what a certificate says of itself; total, whatever stands in it.

    Extensions count as absent when they cannot be decoded. `subject`, `issuer` (RFC 4514) and
    `names` (DNS names, then IP addresses) are escaped; the URLs are as in the certificate, for
    whoever fetches to judge. `key_type` is EDDSA for every key that is neither RSA nor EC, so
    for ML-DSA or DSA too; `read` refuses all but Ed25519 and Ed448.
    """
    dns, addresses = _alternative_names(certificate)
    access = _extension(certificate, x509.AuthorityInformationAccess)
    features = _extension(certificate, x509.TLSFeature)
    return LeafFacts(
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        serial=_serial(certificate),
        subject=escape(dn(certificate, "subject")),
        issuer=escape(dn(certificate, "issuer")),
        names=tuple(escape(name) for name in (*dns, *map(str, addresses))),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key_type=_key_type(certificate),
        ocsp_urls=_urls(access, AuthorityInformationAccessOID.OCSP),
        ca_issuers=_urls(access, AuthorityInformationAccessOID.CA_ISSUERS),
        must_staple=features is not None and x509.TLSFeatureType.status_request in features,
    )


def matches_name(certificate: x509.Certificate, name: str) -> NameMatch:
    """Tell whether a certificate covers a DNS name (A- or U-labels, or a wildcard) or an IP literal.

    service-identity decides, by subjectAltName only (RFC 9525). A presented name that it refuses is
    passed over, not the whole certificate. It lets no wildcard cover an A-label, though RFC 9525
    section 6.3, OpenSSL and browsers do; there, and for a wildcard that is wanted, it is asked for
    an ordinary label in that place. What is no name at all DIFFERS.
    """
    wanted = name.strip().removesuffix(".").lower()
    address = _address(wanted)
    dns, addresses = _alternative_names(certificate)
    if address is not None:
        return _verified([IPAddressPattern(ip) for ip in addresses], IPAddress_ID(str(address)))
    patterns = [pattern for pattern in map(_dns_pattern, dns) if pattern is not None]
    wildcards = [pattern for pattern in patterns if pattern.pattern.startswith(b"*.")]
    head, _, parent = wanted.partition(".")
    any_label = _dns_id(f"{_ANY_LABEL}.{parent}")
    if head == "*":
        return _verified(wildcards, any_label)
    exact = _dns_id(wanted)
    found = _verified(patterns, exact)
    if found is NameMatch.DIFFERS and exact is not None and exact.hostname.startswith(b"xn--"):
        return _verified(wildcards, any_label)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what cryptography warns of a foreign certificate off this program's stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_pem(*certificates: x509.Certificate) -> bytes:
    """Return the certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Tell whether `parent` is the issuer of `child` by name and by signature."""
    try:
        child.verify_directly_issued_by(parent)
    except REFUSALS:
        return False
    return True


def without_roots(chain: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return a chain less what is self-signed."""
    return tuple(certificate for certificate in chain if not issued(certificate, certificate))


def public_key_digest(public: PublicKeyTypes) -> str | None:
    """Return the SHA-256 of the SubjectPublicKeyInfo, hex; None for a key that no TLS server uses."""
    if not isinstance(public, _SERVER_KEYS):
        return None
    encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def key_digest(certificate: x509.Certificate) -> str | None:
    """Return `public_key_digest` of the certificate's key; None also when it cannot be decoded."""
    try:
        return public_key_digest(certificate.public_key())
    except REFUSALS:
        return None


def _key_type(certificate: x509.Certificate) -> KeyType:
    # By OID, so that a key which cannot be decoded still has a type.
    oid = certificate.public_key_algorithm_oid.dotted_string
    if oid.startswith("1.2.840.113549.1.1."):
        return KeyType.RSA
    return KeyType.ECDSA if oid == "1.2.840.10045.2.1" else KeyType.EDDSA


def extensions_problem(certificate: x509.Certificate) -> str:
    """Return why the extensions cannot be decoded, escaped; empty when they can."""
    try:
        with quiet():
            _ = certificate.extensions
    except REFUSALS as refusal:
        return escape(str(refusal)) or type(refusal).__name__
    return ""


def _extension(certificate: x509.Certificate, kind: type[_ExtensionT]) -> _ExtensionT | None:
    try:
        with quiet():
            return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, *REFUSALS):
        return None


def _urls(access: x509.AuthorityInformationAccess | None, method: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(
        description.access_location.value
        for description in access or ()
        if description.access_method == method
        and isinstance(description.access_location, x509.UniformResourceIdentifier)
    )


def leaf_in(data: bytes) -> x509.Certificate | None:
    """Return the first certificate of a PEM, whatever stands beside it; None where there is none to read."""
    begin = data.find(b"-----BEGIN CERTIFICATE-----")
    try:
        with quiet():
            return x509.load_pem_x509_certificate(data[max(begin, 0) :])
    except REFUSALS:
        return None


def common_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the common names of the subject; none when it cannot be decoded."""
    try:
        with quiet():
            found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            return tuple(str(one.value) for one in found)
    except REFUSALS:
        return ()


def dn(certificate: x509.Certificate, which: str) -> str:
    """Return the subject or issuer as RFC 4514 text, unescaped; empty when it cannot be decoded."""
    try:
        with quiet():
            return (certificate.subject if which == "subject" else certificate.issuer).rfc4514_string()
    except REFUSALS:
        return ""


def _serial(certificate: x509.Certificate) -> int:
    with quiet():
        return certificate.serial_number


def same_name(child: x509.Certificate, candidate: x509.Certificate) -> bool:
    """Tell whether `candidate` bears the name of the issuer of `child`; says nothing of its key."""
    issuer = dn(child, "issuer")
    return bool(issuer) and issuer == dn(candidate, "subject")


def label(certificate: x509.Certificate) -> str:
    """Return what a message calls a certificate: subject, else first name, else serial; escaped."""
    subject = dn(certificate, "subject")
    if subject:
        return escape(subject)
    dns, addresses = _alternative_names(certificate)
    names = [*dns, *map(str, addresses)]
    return escape(names[0]) if names else f"serial {_serial(certificate):x}"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[_Address]]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return [], []
    addresses = names.get_values_for_type(x509.IPAddress)
    return names.get_values_for_type(x509.DNSName), [
        ip for ip in addresses if isinstance(ip, ipaddress.IPv4Address | ipaddress.IPv6Address)
    ]


def _address(name: str) -> _Address | None:
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _dns_pattern(name: str) -> DNSPattern | None:
    try:
        return DNSPattern.from_bytes(name.encode("utf-8"))
    except (CertificateError, ValueError):
        return None


def _dns_id(name: str) -> DNS_ID | None:
    try:
        return DNS_ID(name)
    except ValueError:
        return None


def _verified(
    patterns: Sequence[DNSPattern] | Sequence[IPAddressPattern], wanted: DNS_ID | IPAddress_ID | None
) -> NameMatch:
    if wanted is None:
        return NameMatch.DIFFERS
    try:
        verify_service_identity(patterns, [wanted], [])
    except (CertificateError, VerificationError, ValueError):
        # ValueError: service-identity before 26 on a single label beside a wildcard.
        return NameMatch.DIFFERS
    return NameMatch.MATCHES
