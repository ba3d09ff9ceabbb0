"""A site on a real nginx that always staples: our own CA, the staple from a file, no responder needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from lab.process import until
from stapleguard.host import Child
from stapleguard.rehearsal.authority import Authority, Issued, LeafOptions
from stapleguard.rehearsal.webserver import Nginx, find_nginx, free_port

from bench.figures import BenchError

NAME = "www.bench.test"
_NOWHERE = "http://127.0.0.1:9/"
"""The responder that the certificates name; nobody asks it."""


def nginx_binary() -> str:
    """The nginx to be measured with."""
    binary = find_nginx()
    if binary is None:
        raise BenchError("there is no nginx on this host")
    return binary


class StapledSite:
    """nginx on a port of 127.0.0.1, or, with `enter`, on every address of another network namespace.

    `others` is for how many more server names it has a certificate of their own each.
    """

    def __init__(self, directory: Path, *, others: int = 0, enter: Sequence[str] = ()) -> None:
        self.directory = directory
        self.anchors = directory / "root.pem"
        self.names = (NAME, *(f"w{number}.bench.test" for number in range(others)))
        self._authority = Authority.create(datetime.now(UTC))
        self._stack = ExitStack()
        (directory / "nginx").mkdir(mode=0o700)
        self._nginx = Nginx(nginx_binary(), directory / "nginx", workers=2)
        self._enter = tuple(enter)
        self.port = 443 if enter else free_port()

    def __enter__(self) -> Self:
        self.anchors.write_bytes(self._authority.root.public_bytes(serialization.Encoding.PEM))
        (self.directory / "trusted.pem").write_bytes(self._authority.trusted_pem())
        self._nginx.write_config("\n".join(self._block(name) for name in self.names))
        config = self._nginx.config.read_text()
        self._nginx.config.write_text(config.replace("worker_connections 256", "worker_connections 4096"))
        if self._enter:
            self._start_there()
        else:
            self._stack.enter_context(self._nginx)
            self._nginx.start(self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start_there(self) -> None:
        argv = [*self._enter, nginx_binary(), *self._nginx.arguments]
        child = Child.spawn(argv, self.directory, self.directory / "output.log")
        self._stack.callback(child.stop, 3.0)
        # The pid file comes after the sockets.
        pid_file = self.directory / "nginx" / "nginx.pid"
        until(lambda: pid_file.exists() or child.poll() is not None, "nginx is ready")
        if child.poll() is not None:
            raise BenchError(f"nginx ended\n{(self.directory / 'output.log').read_text()}")

    def _block(self, name: str) -> str:
        issued = self._authority.issue([name], datetime.now(UTC), LeafOptions(ocsp_url=_NOWHERE))
        files = {
            "chain": issued.fullchain_pem,
            "key": issued.key_pem,
            "staple": self._staple(issued),
        }
        for kind, content in files.items():
            (self.directory / f"{name}.{kind}").write_bytes(content)
        at = self.directory / name
        where = "*:443 backlog=4096" if self._enter else f"127.0.0.1:{self.port} backlog=4096"
        listen = where if name == NAME else where.partition(" ")[0]
        return (
            f"server {{ listen {listen} ssl; server_name {name}; ssl_protocols TLSv1.2 TLSv1.3;\n"
            f"ssl_certificate {at}.chain; ssl_certificate_key {at}.key;\n"
            f"ssl_stapling on; ssl_stapling_file {at}.staple;\n"
            f"ssl_trusted_certificate {self.directory}/trusted.pem; return 204; }}"
        )

    def _staple(self, issued: Issued) -> bytes:
        builder = ocsp.OCSPRequestBuilder()
        asked = builder.add_certificate(issued.certificate, self._authority.intermediate, hashes.SHA1())
        request = asked.build().public_bytes(serialization.Encoding.DER)
        return self._authority.answer(request, datetime.now(UTC))
