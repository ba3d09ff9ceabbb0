"""Real certificates for the tests of material: an authority with two intermediates, leaves as needed."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from stapleguard.finding import Finding
from stapleguard.material import Material, TrustPath, read
from stapleguard.model import SourceFiles

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
OCSP_URL = "http://ocsp.ca.test/"
AIA_URL = "http://ca.test/issuer.der"
SigningKey = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)


@dataclass(frozen=True)
class Pair:
    key: SigningKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


def key_pem(key: SigningKey | dsa.DSAPrivateKey, password: bytes = b"") -> bytes:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def issue(
    subject: str,
    issuer: Pair | None = None,
    *,
    key: SigningKey | None = None,
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    life: tuple[datetime, datetime] = (NOW - DAY, NOW + 90 * DAY),
    extensions: Sequence[x509.ExtensionType] = (),
    issuer_name: str | None = None,
) -> Pair:
    """Issue a certificate with no more than it is given; Pebble's have neither CN nor SKI."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    by = issuer.certificate.subject if issuer else named(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(by if issuer_name is None else named(issuer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0])
        .not_valid_after(life[1])
    )
    general = [
        *map(x509.DNSName, names),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
    ]
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=not subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = (
        None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    )
    return Pair(key, builder.sign(signer, algorithm))


def access(*, ocsp: str = "", issuers: str = "") -> x509.AuthorityInformationAccess:
    oids = ((ocsp, AuthorityInformationAccessOID.OCSP), (issuers, AuthorityInformationAccessOID.CA_ISSUERS))
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(oid, x509.UniformResourceIdentifier(url)) for url, oid in oids if url]
    )


MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])


@dataclass(frozen=True)
class Authority:
    root: Pair
    upper: Pair
    lower: Pair
    leaf: Pair

    @property
    def source(self) -> SourceFiles:
        return files(self.leaf, self.lower, self.upper)

    @property
    def path(self) -> TrustPath:
        return TrustPath(
            tuple(pair.certificate for pair in (self.leaf, self.lower, self.upper, self.root)),
        )


@functools.cache
def authority() -> Authority:
    root = issue("Root", life=(NOW - 900 * DAY, NOW + 900 * DAY))
    upper = issue("Upper", root, extensions=[access(issuers=AIA_URL)])
    lower = issue("Lower", upper)
    leaf = issue(
        "www.example.org",
        lower,
        names=["www.example.org", "example.org"],
        extensions=[access(ocsp=OCSP_URL, issuers=AIA_URL)],
    )
    return Authority(root, upper, lower, leaf)


PATHS = {kind: f"/etc/le/{kind}.pem" for kind in ("privkey", "cert", "chain", "fullchain")}


def files(leaf: Pair, *chain: Pair) -> SourceFiles:
    above = b"".join(pair.pem for pair in chain)
    return SourceFiles(leaf.key_pem, leaf.pem, above, leaf.pem + above, PATHS)


def good(source: SourceFiles) -> Material:
    result = read(source)
    assert isinstance(result, Material), result
    return result


def bad(source: SourceFiles) -> tuple[Finding, ...]:
    result = read(source)
    assert isinstance(result, tuple)
    assert result
    return result


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


CA = authority()


def path_of(leaf: Pair) -> TrustPath:
    return TrustPath((leaf.certificate, *CA.path.certificates[1:]))


TWIST_KEY = ec.generate_private_key(ec.SECP256R1())


def twist(certificate: x509.Certificate, issuer: Pair, *odd: tuple[str, bytes]) -> x509.Certificate:
    """Sign a certificate with raw extensions (OID, DER); by default a subjectAltName that is no SEQUENCE."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(TWIST_KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    for oid, der in odd or (("2.5.29.17", b"\x02\x01\x05"),):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), der)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer.key, hashes.SHA256())
