"""A site in a container: Debian's nginx.service, our own CA and responder, the program as it is installed."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import serialization
from lab.booted import Booted
from lab.client import Seen, look
from lab.process import Completed, until
from stapleguard.rehearsal.authority import Authority, Issued, LeafOptions
from stapleguard.rehearsal.responder import Responder

NAME = "www.site.test"
SOURCE = f"/etc/letsencrypt/live/{NAME}"
STATE = "/var/lib/stapleguard"
PORT = 443
WORKERS = 2


class Served:
    """A context manager; the container goes on being the caller's."""

    def __init__(self, box: Booted) -> None:
        self.box = box
        self.stack = ExitStack()
        self.authority = Authority.create(datetime.now(UTC))
        self.version = 0

    def __enter__(self) -> Served:
        made = self.box.on_its_network(lambda: Responder(self.authority, lambda: datetime.now(UTC)))
        self.responder = self.stack.enter_context(made)
        root = self.authority.root.public_bytes(serialization.Encoding.PEM)
        self.box.write("/etc/stapleguard/root.pem", root.decode())
        self.configure()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def configure(self, more: str = "", fetch: str = "") -> None:
        """Write the program's configuration."""
        self.box.write(
            "/etc/stapleguard/stapleguard.toml",
            'anchors = "/etc/stapleguard/root.pem"\n'
            f'[fetch]\nallow_addresses = ["127.0.0.0/8", "::1"]\n{fetch}\n'
            f"[prove]\nquiet = 0.6\n{more}\n",
        )

    def renew(self, name: str = NAME, **options: Any) -> Issued:
        """Do what an ACME client does before it calls its hook."""
        self.version += 1
        options.setdefault("ocsp_url", f"http://127.0.0.1:{self.responder.port}/")
        issued = self.authority.issue([name], datetime.now(UTC), LeafOptions(**options))
        issued.write_lineage(self.box.path_in("/etc/letsencrypt"), name, self.version)
        return issued

    def nginx(self, *names: str, extra: str = "") -> None:
        """Write Debian's /etc/nginx/nginx.conf."""
        blocks = "\n".join(
            f"server {{ listen 127.0.0.1:{PORT + index} ssl; server_name {name}; "
            f'include {STATE}/live/{name}/nginx.conf; location / {{ return 200 "pid $pid\\n"; }} }}'
            for index, name in enumerate(names)
        )
        self.box.write(
            "/etc/nginx/nginx.conf",
            f"user www-data;\nworker_processes {WORKERS};\npid /run/nginx.pid;\n"
            "error_log /var/log/nginx/error.log info;\nevents { worker_connections 256; }\n"
            f"http {{ access_log off;\n{blocks}\n{extra}\n}}\n",
        )

    def open(self, **options: Any) -> Issued:
        """Serve a first certificate, the way the tutorial does."""
        issued = self.renew(**options)
        self.nginx()
        assert self.stapleguard("deploy", SOURCE).status == 7  # published; nothing uses it yet
        self.nginx(NAME)
        self.box.run("systemctl", "restart", "nginx").succeeded()
        assert self.stapleguard("deploy", SOURCE).status == 0
        return issued

    def stapleguard(self, *argv: str) -> Completed:
        """Run the program in the foreground."""
        return self.box.run("stapleguard", *argv)

    def drop_in(self, unit: str, text: str, name: str = "lab") -> None:
        """Change a unit as an administrator does; an empty text takes the change back."""
        file = f"/etc/systemd/system/{unit}.d/{name}.conf"
        if text:
            self.box.write(file, text)
        else:
            self.box.path_in(file).unlink()
        self.box.run("systemctl", "daemon-reload").succeeded()

    def look(self, name: str = NAME, port: int = PORT) -> Seen:
        """One handshake by a client that shares nothing with the product."""
        return self.box.on_its_network(lambda: look("127.0.0.1", port, name))

    def serves(self, issued: Issued) -> bool:
        """Whether a client sees this certificate with a good staple."""
        seen = self.look()
        return seen.leaf == issued.certificate and seen.proved

    def until_serves(self, issued: Issued) -> None:
        """Wait for the new certificate with its staple."""
        until(lambda: self.serves(issued), "the new certificate on the wire", 30)
