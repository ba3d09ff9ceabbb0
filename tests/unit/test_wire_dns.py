"""Asking a name server of this host that answers as each test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from stapleguard.finding import Code
from stapleguard.model import UsageError
from stapleguard.wire.dns import Resolution, ask

pytestmark = pytest.mark.unit
NAME = "ocsp.ca.test"


@contextmanager
def name_server(
    records: Mapping[str, str],
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    family: socket.AddressFamily = socket.AF_INET,
) -> Iterator[str]:
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.bind((host, 0))

        def run() -> None:
            while True:
                data, peer = udp.recvfrom(4096)
                if not data:
                    return
                query = dns.message.from_wire(data)
                response = dns.message.make_response(query)
                response.set_rcode(rcode)
                kind = dns.rdatatype.to_text(query.question[0].rdtype)
                if kind in records:
                    response.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", kind, records[kind]))
                udp.sendto(response.to_wire(), peer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        port = udp.getsockname()[1]
        try:
            yield f"127.0.0.1:{port}" if family is socket.AF_INET else f"[::1]:{port}"
        finally:
            with socket.socket(family, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (host, port))
            thread.join(5)


def code(resolution: Resolution) -> Code | None:
    assert bool(resolution.addresses) == (resolution.finding is None)
    return resolution.finding.code if resolution.finding else None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_both_kinds_are_asked(family: socket.AddressFamily) -> None:
    with name_server({"A": "192.0.2.1", "AAAA": "2001:db8::1"}, family=family) as server:
        assert ask(server, NAME, 5).addresses == ("192.0.2.1", "2001:db8::1")


def test_one_kind_is_enough() -> None:
    with name_server({"AAAA": "2001:db8::1"}) as server:
        assert ask(server, NAME, 5).addresses == ("2001:db8::1",)


@pytest.mark.parametrize(
    ("rcode", "expected"),
    [
        (dns.rcode.NXDOMAIN, Code.DNS_NAME_NOT_FOUND),
        (dns.rcode.NOERROR, Code.DNS_NAME_NOT_FOUND),
        (dns.rcode.SERVFAIL, Code.DNS_SERVER_FAILURE),
        (dns.rcode.REFUSED, Code.DNS_SERVER_FAILURE),
    ],
)
def test_each_failure_has_its_code(rcode: dns.rcode.Rcode, expected: Code) -> None:
    with name_server({}, rcode) as server:
        resolution = ask(server, NAME, 5)
    assert code(resolution) is expected
    assert resolution.finding is not None
    assert resolution.finding.evidence["rcode"] == dns.rcode.to_text(rcode)


def test_silence_and_a_closed_port_are_timeouts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        resolution = ask(f"127.0.0.1:{port}", NAME, 0.3)
    assert code(resolution) is Code.DNS_TIMEOUT
    assert resolution.seconds < 2
    assert code(ask(f"127.0.0.1:{port}", NAME, 0.3)) is Code.DNS_TIMEOUT


def test_a_name_that_cannot_be_asked() -> None:
    assert code(ask("127.0.0.1:9", "a" * 64, 1)) is Code.DNS_NAME_NOT_FOUND


@pytest.mark.parametrize(
    "server", ["", "dns.test", "127.0.0.1:0", "127.0.0.1:x", "[::1", "[::1]x", "127.0.0.1:70000"]
)
def test_a_server_that_is_no_address(server: str) -> None:
    with pytest.raises(UsageError):
        ask(server, NAME, 1)
