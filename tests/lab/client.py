"""A TLS client that shares no code with the product: `openssl s_client -status`, the server's words."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
RSA_ONLY = ("-sigalgs", "rsa_pss_rsae_sha256:rsa_pkcs1_sha256")
ECDSA_ONLY = ("-sigalgs", "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384")


@dataclass(frozen=True, slots=True)
class Seen:
    """One handshake: the leaf, the staple's certStatus and serial (None without one), the worker."""

    leaf: x509.Certificate
    status: str | None
    serial: int | None
    worker: int

    @property
    def proved(self) -> bool:
        """Whether a good staple came, and for this very leaf."""
        return self.status == "good" and self.serial == self.leaf.serial_number


def look(address: str, port: int, server_name: str, options: Sequence[str] = ()) -> Seen:
    """One fresh full handshake and one request; the site answers with `pid N`."""
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    argv = [
        "openssl",
        "s_client",
        "-connect",
        where,
        "-servername",
        server_name,
        "-status",
        "-ign_eof",
        *options,
    ]
    request = f"GET / HTTP/1.0\r\nHost: {server_name}\r\n\r\n"
    done = subprocess.run(argv, input=request, capture_output=True, text=True, timeout=10, check=False)
    pem = _CERTIFICATE.search(done.stdout)
    worker = re.search(r"^pid (\d+)", done.stdout, re.MULTILINE)
    if not pem or not worker:
        raise AssertionError(f"no handshake with {where} for {server_name}:\n{done.stdout}\n{done.stderr}")
    status = re.search(r"^ *Cert Status: (\w+)", done.stdout, re.MULTILINE)
    serial = re.search(r"^ *Serial Number: ([0-9A-F]+)", done.stdout, re.MULTILINE)
    return Seen(
        leaf=x509.load_pem_x509_certificate(pem[0].encode()),
        status=status[1] if status else None,
        serial=int(serial[1], 16) if serial else None,
        worker=int(worker[1]),
    )
