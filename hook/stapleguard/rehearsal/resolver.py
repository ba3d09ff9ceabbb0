"""A DNS server for a handful of names, so that a web server in the lab asks nobody outside."""

from __future__ import annotations

import ipaddress
import socketserver
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_SHUTDOWN_POLL_SECONDS: Final = 0.02
_TTL_SECONDS: Final = 0
"""A zone that is replaced counts at once."""


class Resolver:
    """Answers A and AAAA over UDP on loopback between `with` and its end.

    The zone maps a name (case and a final dot do not matter) to its IPv4 and IPv6 addresses: a name
    without an address of the wanted kind has an empty answer, a name that is missing NXDOMAIN.
    """

    def __init__(self, zone: Mapping[str, Sequence[str]]) -> None:
        self._lock = threading.Lock()
        self._zone = _normal(zone)
        self._queries: list[str] = []
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_SECONDS,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as nginx's `resolver` takes it."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def queries(self) -> tuple[str, ...]:
        """The names asked for so far, in order, in lower case, without the final dot."""
        with self._lock:
            return tuple(self._queries)

    @property
    def zone(self) -> Mapping[str, Sequence[str]]:
        """What is answered now; assign another mapping to replace it as a whole."""
        with self._lock:
            return self._zone

    @zone.setter
    def zone(self, zone: Mapping[str, Sequence[str]]) -> None:
        replacement = _normal(zone)
        with self._lock:
            self._zone = replacement

    def answer(self, wire: bytes) -> bytes | None:
        """Respond to a DNS message, both in wire format; None for what is no query (RFC 1035)."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR or len(query.question) != 1:
            return None
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        with self._lock:
            self._queries.append(name)
            addresses = self._zone.get(name)
        response = dns.message.make_response(query, recursion_available=True)
        if addresses is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        kinds = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}
        wanted = [one for one in addresses if ipaddress.ip_address(one).version == kinds.get(question.rdtype)]
        if wanted:
            response.answer.append(
                dns.rrset.from_text_list(question.name, _TTL_SECONDS, "IN", question.rdtype, wanted)
            )
        return response.to_wire()


def _normal(zone: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {name.lower().removesuffix("."): tuple(addresses) for name, addresses in zone.items()}


class _Server(socketserver.UDPServer):
    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        wire, connection = self.request
        response = self.server.resolver.answer(wire)
        if response is not None:
            connection.sendto(response, self.client_address)
