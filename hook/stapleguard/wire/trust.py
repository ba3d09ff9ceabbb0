"""Trust paths, found by OpenSSL as servers and clients do (RFC 5280 section 6)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from OpenSSL import crypto

from stapleguard.material import TrustPath
from stapleguard.model import UsageError, escape

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Anchors:
    """A set of trust anchors; `source` is the file it came from."""

    source: str
    certificates: tuple[x509.Certificate, ...] = field(repr=False)


def system_anchors() -> Anchors:
    """Return the system's store; empty when there is none."""
    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            return _read(candidate)
    return Anchors("", ())


def anchors_from_file(path: str) -> Anchors:
    """Read a PEM file of anchors; UsageError when it cannot be read or holds none."""
    return _read(path)


def _read(path: str) -> Anchors:
    try:
        return Anchors(path, tuple(x509.load_pem_x509_certificates(Path(path).read_bytes())))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read trust anchors from {escape(path)}: {escape(str(error))}",
            "give a PEM file of CA certificates",
        ) from None


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
