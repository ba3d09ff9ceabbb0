"""One site on a real nginx with our own CA, responder and resolver, driven through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from stapleguard.rehearsal.authority import Authority, Issued, LeafOptions
from stapleguard.rehearsal.resolver import Resolver
from stapleguard.rehearsal.responder import Responder
from stapleguard.rehearsal.webserver import Nginx, free_port

NAME = "www.site.test"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Site:
    def __init__(self, binary: str, directory: Path, workers: int = 4) -> None:
        self.directory = directory
        self.stack = ExitStack()
        self.authority = Authority.create(datetime.now(UTC))
        (directory / "root.pem").write_bytes(self.authority.root.public_bytes(serialization.Encoding.PEM))
        (directory / "nginx").mkdir(mode=0o700)
        self.responder = self.stack.enter_context(Responder(self.authority, lambda: datetime.now(UTC)))
        self.resolver = self.stack.enter_context(Resolver({"localhost": ["127.0.0.1"]}))
        self.nginx = self.stack.enter_context(Nginx(binary, directory / "nginx", workers))
        self.binary = binary
        self.port = free_port()
        self.version = 0
        self.configure()

    def close(self) -> None:
        self.stack.close()

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def lineage(self) -> Path:
        return self.directory / "acme" / "live" / NAME

    def configure(self, policy: str = "", more: str = "") -> None:
        (self.directory / "c.toml").write_text(
            f'anchors = "{self.directory}/root.pem"\n'
            f'[fetch]\nallow_addresses = ["127.0.0.0/8", "::1"]\n'
            f'[nginx]\nbinary = "{self.binary}"\nconfig = "{self.nginx.config}"\n'
            f'resolver = ["{self.resolver.address}", "ipv6=off"]\n'
            f"[policy]\n{policy}\n"
            f"[prove]\nquiet = 1.5\n{more}\n"
        )

    def renew(self, **options: Any) -> Issued:
        self.version += 1
        options.setdefault("ocsp_url", self.responder.url)
        issued = self.authority.issue([NAME], datetime.now(UTC), LeafOptions(**options))
        issued.write_lineage(self.directory / "acme", NAME, self.version)
        return issued

    def argv(self, *words: str) -> list[str]:
        config = str(self.directory / "c.toml")
        return [
            sys.executable,
            "-m",
            "stapleguard",
            "--config",
            config,
            "--state-dir",
            str(self.state),
            *words,
        ]

    def run(self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> Ended:
        environment = {**os.environ, **(env or {})}
        done = subprocess.run(
            self.argv(*words), capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def deploy(self, *words: str) -> Ended:
        return self.run("deploy", str(self.lineage), "--json", *words)

    def block(self) -> str:
        include = self.state / "live" / NAME / "nginx.conf"
        where = f"listen 127.0.0.1:{self.port} ssl; server_name {NAME}"
        return f'server {{ {where}; include "{include}"; return 204; }}'

    def open(self, **options: Any) -> Issued:
        """Serve a first certificate, the way the tutorial does."""
        issued = self.renew(**options)
        self.nginx.write_config("")
        assert self.deploy().status == 7  # published; nothing uses it yet
        self.nginx.write_config(self.block())
        self.nginx.start(self.port)
        assert self.run("deploy", str(self.lineage)).status == 0
        return issued

    def live(self) -> str:
        return str((self.state / "live" / NAME).readlink())
