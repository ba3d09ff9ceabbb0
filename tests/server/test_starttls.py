"""STARTTLS with the servers that speak it: what they serve is judged, and a refusal is told apart."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from lab.mail import mail_servers
from lab.tools import require
from stapleguard.model import Ask, Endpoint, HandshakeFault, Observation, StartTls, TlsVersion
from stapleguard.rehearsal.authority import Authority
from stapleguard.wire.handshake import Limits, observe

pytestmark = pytest.mark.server

NAME, OTHER = "mail.test", "other.test"
NOW = datetime.now(UTC)
AUTHORITY = Authority.create(NOW)
GOOD = AUTHORITY.issue([NAME], NOW)

Ports = Mapping[StartTls, int]

# How each asks for TLS, and how each of these servers says that it has none.
ASKS = (b"STARTTLS", b"STLS", b"1.3.6.1.4.1.1466.20037", b"\x04\xd2\x16\x2f")
SAID = {
    StartTls.SMTP: "502 5.5.1 Error: command not implemented",
    StartTls.IMAP: "s1 BAD TLS support isn't enabled.",
    StartTls.POP3: "-ERR TLS support isn't enabled.",
    StartTls.LDAP: "the server refuses the StartTLS operation",
    StartTls.POSTGRES: "the server was built or configured without TLS",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("servers")
    folder = tmp_path_factory.mktemp("starttls")
    root = folder / "root.pem"
    root.write_bytes(AUTHORITY.root.public_bytes(serialization.Encoding.PEM))
    (folder / "c.toml").write_text(f'anchors = "{root}"\n')
    return folder / "c.toml"


@pytest.fixture(scope="module")
def good(config: Path) -> Iterator[Ports]:
    with mail_servers(GOOD) as ports:
        yield ports


def check(config: Path, ports: Ports, *names: str) -> dict[tuple[str, str], Any]:
    """Look at every server with each name, in one run; the line of each, by protocol and name."""
    lines = [
        f"{protocol.value}://127.0.0.1:{port} {name}\n" for protocol, port in ports.items() for name in names
    ]
    argv = [sys.executable, "-m", "stapleguard", "--config", str(config), "check", "--jsonl", "--file", "-"]
    done = subprocess.run(argv, input="".join(lines), capture_output=True, text=True, timeout=60, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    named = {port: protocol.value for protocol, port in ports.items()}
    return {(named[one["port"]], one["server_name"]): one for one in rows if "port" in one}


@pytest.fixture(scope="module")
def rows(config: Path, good: Ports) -> dict[tuple[str, str], Any]:
    return check(config, good, NAME, OTHER)


@pytest.fixture(scope="module")
def plain_rows(config: Path) -> dict[tuple[str, str], Any]:
    with mail_servers(None) as ports:
        return check(config, ports, NAME)


def sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize("protocol", StartTls)
def test_certificate_chain_and_name_are_proved(rows: dict[tuple[str, str], Any], protocol: StartTls) -> None:
    row = rows[protocol.value, NAME]
    assert (row["verdict"], row["findings"]) == (
        "not-applicable",
        [],
    )  # no OCSP responder: no staple expected
    assert row["chain_sha256"] == [sha256(GOOD.certificate), *map(sha256, GOOD.chain)]
    other = rows[protocol.value, OTHER]
    assert (other["verdict"], other["cause"]) == ("degraded", "served.name-mismatch")


@pytest.mark.parametrize("protocol", StartTls)
def test_a_server_without_tls_says_so(plain_rows: dict[tuple[str, str], Any], protocol: StartTls) -> None:
    row = plain_rows[protocol.value, NAME]
    assert (row["verdict"], row["cause"]) == ("inconclusive", "served.tls-failure")
    (found,) = row["findings"]
    assert found["evidence"] == {"fault": "no-starttls"}
    assert SAID[protocol] in found["message"]


@pytest.mark.parametrize("version", TlsVersion)
@pytest.mark.parametrize("protocol", StartTls)
def test_both_versions_of_tls_begin_there(good: Ports, protocol: StartTls, version: TlsVersion) -> None:
    seen = look(protocol, good[protocol], version)
    assert (seen.fault, seen.protocol) == (None, version.value), seen.detail
    assert seen.chain[0] == GOOD.certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("protocol", StartTls)
def test_what_is_said_in_clear_after_the_go_ahead_is_refused(good: Ports, protocol: StartTls) -> None:
    with relayed(good[protocol], b"") as port:
        assert look(protocol, port).fault is None
    with relayed(good[protocol], b"250 injected\r\n") as port:
        seen = look(protocol, port)
    assert (seen.fault, seen.chain) == (HandshakeFault.NO_STARTTLS, ())
    assert seen.detail == "more came after the go-ahead, before TLS"


def look(protocol: StartTls, port: int, version: TlsVersion | None = None) -> Observation:
    endpoint = Endpoint(NAME, port, NAME, "127.0.0.1", protocol)
    (seen,) = observe([Ask(endpoint, version)], Limits(), now=lambda: NOW)
    return seen


@contextmanager
def relayed(port: int, injected: bytes) -> Iterator[int]:
    """Stand between one client and the server, and add to the answer that lets TLS begin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_relay, args=(listener, port, injected))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def _relay(listener: socket.socket, port: int, injected: bytes) -> None:
    client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
        asked = False
        while True:
            for one in select.select([client, server], [], [])[0]:
                data = one.recv(65536)
                if not data:
                    return
                if one is client:
                    asked = asked or any(words in data for words in ASKS)
                    server.sendall(data)
                elif asked:
                    client.sendall(data + injected)
                    injected = b""
                else:
                    client.sendall(data)
