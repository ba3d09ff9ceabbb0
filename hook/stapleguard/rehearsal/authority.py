"""A private certification authority: a root, an intermediate, leaves, and OCSP responses signed by them.

Keys live in this process and in the lineages that are written; nothing of it is ever trusted outside.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias, assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from stapleguard.model import KeyType

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_CA_LIFE: Final = timedelta(days=3650)
_DELEGATE_LIFE: Final = timedelta(days=30)
_CA_BACKDATE: Final = timedelta(days=30)
"""Far enough back that an expired answer, too, was made within its signer's life."""
_LEAF_BACKDATE: Final = timedelta(hours=1)


class Signer(Enum):
    """Who signs an OCSP response (RFC 6960 section 4.2.2.2)."""

    ISSUER = "issuer"
    """The CA that issued the leaf."""
    DELEGATE = "delegate"
    """A responder certificate issued by that CA with id-kp-OCSPSigning; it travels in the response."""
    IMPOSTOR = "impostor"
    """Another key under the name of the issuer: the signature does not verify."""
    UNAUTHORIZED = "unauthorized"
    """A certificate of that CA without id-kp-OCSPSigning; it travels in the response."""


@dataclass(frozen=True, slots=True)
class LeafOptions:
    """What goes into a leaf besides its names; `days` is the whole life, one hour of it lies in the past.

    `more_ocsp_urls` stand behind `ocsp_url`.
    """

    ocsp_url: str | None = None
    more_ocsp_urls: tuple[str, ...] = ()
    ca_issuers_url: str | None = None
    must_staple: bool = False
    key_type: KeyType = KeyType.ECDSA
    days: float = 90.0


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What an OCSP response says; the two times are relative to the moment of the answer.

    `serial_offset` other than 0 makes it an answer about another certificate. `certid_hash` None
    takes the algorithm of the request.
    """

    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    this_update: timedelta = timedelta(hours=-1)
    next_update: timedelta | None = timedelta(days=7)
    signer: Signer = Signer.ISSUER
    serial_offset: int = 0
    certid_hash: hashes.HashAlgorithm | None = None


PLAIN_LEAF: Final = LeafOptions()
GOOD_ANSWER: Final = AnswerOptions()


@dataclass(frozen=True, slots=True)
class Issued:
    """A leaf with its key (PEM, PKCS #8, unencrypted) and the intermediates that lead to the root."""

    key_pem: bytes = field(repr=False)
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]

    @property
    def cert_pem(self) -> bytes:
        """The leaf alone, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        """The intermediates alone, PEM."""
        return b"".join(link.public_bytes(serialization.Encoding.PEM) for link in self.chain)

    @property
    def fullchain_pem(self) -> bytes:
        """Leaf and intermediates, PEM."""
        return self.cert_pem + self.chain_pem

    def write_lineage(self, config_dir: Path, name: str, number: int) -> Path:
        """Write version `number` of lineage `name` in certbot's layout and return its live directory.

        Like certbot, files go to `archive/NAME/KIND<number>.pem` and the links in `live/NAME` are
        turned one by one. Raises FileExistsError when that version is there already.
        """
        live, archive = config_dir / "live" / name, config_dir / "archive" / name
        for directory in (config_dir, live.parent, live, archive.parent, archive):
            directory.mkdir(mode=0o700, exist_ok=True)
        for kind, content, mode in (
            ("cert", self.cert_pem, 0o644),
            ("privkey", self.key_pem, 0o600),
            ("chain", self.chain_pem, 0o644),
            ("fullchain", self.fullchain_pem, 0o644),
        ):
            target = archive / f"{kind}{number}.pem"
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        for kind in ("cert", "privkey", "chain", "fullchain"):
            link = live / f"{kind}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(Path("..", "..", "archive", name, f"{kind}{number}.pem"))
        return live


@dataclass(frozen=True, slots=True)
class _Holder:
    """A certificate together with its private key."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A root, an intermediate that issues leaves, and the certificates that sign its OCSP responses."""

    _root: _Holder
    _intermediate: _Holder
    _delegate: _Holder
    _unauthorized: _Holder
    _impostor: _Holder

    @classmethod
    def create(cls, now: datetime, key_type: KeyType = KeyType.ECDSA) -> Authority:
        """Make a new authority with fresh keys of `key_type`, valid around `now` (UTC)."""
        root = _ca("stapleguard rehearsal root", _new_key(key_type), None, now)
        intermediate = _ca("stapleguard rehearsal intermediate", _new_key(key_type), root, now)
        subject = intermediate.certificate.subject
        fake_key = _new_key(key_type)
        fake = _builder(subject, subject, fake_key, (now - _CA_BACKDATE, now + _CA_LIFE))
        return cls(
            root,
            intermediate,
            _responder(
                "stapleguard rehearsal responder", ExtendedKeyUsageOID.OCSP_SIGNING, intermediate, now
            ),
            _responder("stapleguard rehearsal intruder", ExtendedKeyUsageOID.CLIENT_AUTH, intermediate, now),
            _Holder(_sign(fake, fake_key), fake_key),
        )

    @property
    def root(self) -> x509.Certificate:
        """The anchor."""
        return self._root.certificate

    @property
    def intermediate(self) -> x509.Certificate:
        """The issuer of every leaf."""
        return self._intermediate.certificate

    def trusted_pem(self) -> bytes:
        """Intermediate and root, PEM: what nginx wants as ssl_trusted_certificate."""
        pem = serialization.Encoding.PEM
        return self.intermediate.public_bytes(pem) + self.root.public_bytes(pem)

    def issue(self, names: Sequence[str], now: datetime, options: LeafOptions = PLAIN_LEAF) -> Issued:
        """Issue a server certificate with a fresh key for the DNS `names` (at least one)."""
        key = _new_key(options.key_type)
        begin = now - _LEAF_BACKDATE
        builder = (
            _builder(
                _name(names[0]), self.intermediate.subject, key, (begin, begin + timedelta(days=options.days))
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
            .add_extension(_authority_key(self._intermediate), critical=False)
        )
        access = [
            x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
            for method, url in (
                *(
                    (AuthorityInformationAccessOID.OCSP, url)
                    for url in (options.ocsp_url, *options.more_ocsp_urls)
                ),
                (AuthorityInformationAccessOID.CA_ISSUERS, options.ca_issuers_url),
            )
            if url is not None
        ]
        if access:
            builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
        if options.must_staple:  # RFC 7633
            builder = builder.add_extension(
                x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False
            )
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(key_pem, _sign(builder, self._intermediate.key), (self.intermediate,))

    def answer(self, request_der: bytes, now: datetime, options: AnswerOptions = GOOD_ANSWER) -> bytes:
        """Answer a DER OCSPRequest about one certificate with a DER OCSPResponse.

        Like a real responder: malformedRequest for what does not parse, unauthorized for a
        certificate of another issuer (RFC 6960 section 2.3). producedAt is the machine's clock,
        whatever `now` says: the library offers no other.
        """
        try:
            request = ocsp.load_der_ocsp_request(request_der)
            hash_algorithm = request.hash_algorithm
        except ValueError:
            return refuse(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        asked = (request.issuer_name_hash, request.issuer_key_hash)
        if asked != _issuer_hashes(self._intermediate, hash_algorithm):
            return refuse(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        at = now.replace(microsecond=0)
        revoked = options.status is ocsp.OCSPCertStatus.REVOKED
        signer = self._signer(options.signer)
        builder = ocsp.OCSPResponseBuilder().add_response(
            self._stand_in(request.serial_number + options.serial_offset, now),
            self.intermediate,
            options.certid_hash or hash_algorithm,
            options.status,
            at + options.this_update,
            None if options.next_update is None else at + options.next_update,
            at - timedelta(days=2) if revoked else None,
            x509.ReasonFlags.key_compromise if revoked else None,
        )
        match options.signer:
            case Signer.ISSUER:
                builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
            case Signer.IMPOSTOR:
                builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, signer.certificate)
            case Signer.DELEGATE | Signer.UNAUTHORIZED:
                builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
                builder = builder.certificates([signer.certificate])
            case never:
                assert_never(never)
        response = builder.sign(signer.key, _digest(signer.key))
        return response.public_bytes(serialization.Encoding.DER)

    def _signer(self, signer: Signer) -> _Holder:
        match signer:
            case Signer.ISSUER:
                return self._intermediate
            case Signer.DELEGATE:
                return self._delegate
            case Signer.IMPOSTOR:
                return self._impostor
            case Signer.UNAUTHORIZED:
                return self._unauthorized
            case never:
                assert_never(never)

    def _stand_in(self, serial: int, now: datetime) -> x509.Certificate:
        """A certificate with this serial: before 45 the library takes a CertID from one, never from parts."""
        subject = self.intermediate.subject
        life = (now - _LEAF_BACKDATE, now + _LEAF_BACKDATE)
        return _sign(_builder(subject, subject, self._impostor.key, life, serial), self._impostor.key)


def refuse(status: ocsp.OCSPResponseStatus) -> bytes:
    """An unsuccessful OCSPResponse, DER: a status and nothing else, unsigned."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)


def _new_key(key_type: KeyType) -> PrivateKey:
    match key_type:
        case KeyType.ECDSA:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.RSA:
            return rsa.generate_private_key(65537, 2048)
        case KeyType.EDDSA:
            return ed25519.Ed25519PrivateKey.generate()
        case never:
            assert_never(never)


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    life: tuple[datetime, datetime],
    serial: int | None = None,
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(life[0])
        .not_valid_after(life[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    return builder.sign(key, _digest(key))


def _ca(common_name: str, key: PrivateKey, parent: _Holder | None, now: datetime) -> _Holder:
    """A CA certificate; without a parent it signs itself and may have one CA below it."""
    subject = _name(common_name)
    issuer = subject if parent is None else parent.certificate.subject
    builder = (
        _builder(subject, issuer, key, (now - _CA_BACKDATE, now + _CA_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0), critical=True)
        .add_extension(_key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True)
    )
    if parent is not None:
        builder = builder.add_extension(_authority_key(parent), critical=False)
    return _Holder(_sign(builder, key if parent is None else parent.key), key)


def _responder(common_name: str, purpose: x509.ObjectIdentifier, issuer: _Holder, now: datetime) -> _Holder:
    """A responder certificate (RFC 6960 section 4.2.2.2.1: nocheck, since nobody could answer for it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    life = (now - _CA_BACKDATE, now + _DELEGATE_LIFE)
    builder = (
        _builder(_name(common_name), issuer.certificate.subject, key, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    return _Holder(_sign(builder, issuer.key), key)


def _key_usage(
    *, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: _Holder) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _issuer_hashes(issuer: _Holder, algorithm: hashes.HashAlgorithm) -> tuple[bytes, bytes]:
    """Compute issuerNameHash and issuerKeyHash (RFC 6960 section 4.1.1) of the leaves of `issuer`."""
    # The library hashes the issuer field of the certificate asked about; in the one of the
    # intermediate itself that is the root.
    subject, now = issuer.certificate.subject, issuer.certificate.not_valid_before_utc
    child = _sign(_builder(subject, subject, issuer.key, (now, now + _LEAF_BACKDATE)), issuer.key)
    request = ocsp.OCSPRequestBuilder().add_certificate(child, issuer.certificate, algorithm).build()
    return request.issuer_name_hash, request.issuer_key_hash
