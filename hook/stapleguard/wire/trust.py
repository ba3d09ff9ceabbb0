"""Trust paths, found by OpenSSL as servers and clients do (RFC 5280 section 6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from OpenSSL import crypto

from stapleguard.material import REFUSALS, TrustPath, quiet
from stapleguard.model import UsageError, escape

_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
)
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Anchors:
    """A set of trust anchors; `source` is the file it came from."""

    source: str
    certificates: tuple[x509.Certificate, ...] = field(repr=False)


def system_anchors() -> Anchors:
    """Return the system's store; empty when there is none."""
    import ssl  # loads a second OpenSSL, which nothing else here needs

    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, paths.openssl_cafile, *_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Anchors(candidate, _readable(Path(candidate)))
    return Anchors("", ())


def anchors_from_file(path: str) -> Anchors:
    """Read a PEM file of anchors; UsageError when it cannot be read or holds none."""
    try:
        return Anchors(path, tuple(x509.load_pem_x509_certificates(Path(path).read_bytes())))
    except (OSError, ValueError, x509.InvalidVersion) as error:
        raise UsageError(
            f"cannot read trust anchors from {escape(path)}: {escape(str(error))}",
            "give a PEM file of CA certificates",
        ) from None


def _readable(bundle: Path) -> tuple[x509.Certificate, ...]:
    """Read what can be read: one odd root among the system's must not cost all the others."""
    found: list[x509.Certificate] = []
    try:
        blocks = _PEM.findall(bundle.read_bytes())
    except OSError:
        return ()
    with quiet():
        for block in blocks:
            with suppress(*REFUSALS):
                found.append(x509.load_pem_x509_certificate(block))
    return tuple(found)


def verify_path(
    leaf: x509.Certificate, chain: Sequence[x509.Certificate], anchors: Anchors, at: datetime
) -> TrustPath:
    """Find a path from `leaf` through `chain` to an anchor, valid at `at` (UTC); no root needed."""
    store = crypto.X509Store()
    wanted = {link.issuer.public_bytes() for link in (leaf, *chain)}
    for anchor in anchors.certificates:
        # A store of every system root costs 5 ms; only those named as an issuer can end this path.
        if anchor.subject.public_bytes() in wanted:
            store.add_cert(crypto.X509.from_cryptography(anchor))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(at.astimezone(UTC).replace(tzinfo=None))
    untrusted = [crypto.X509.from_cryptography(link) for link in chain]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), untrusted)
    try:
        found = context.get_verified_chain()
    except crypto.X509StoreContextError as error:
        return TrustPath((), escape(str(error)))
    return TrustPath(tuple(link.to_cryptography() for link in found))
