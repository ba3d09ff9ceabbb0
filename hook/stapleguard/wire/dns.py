"""Asking one name server, the one that a web server's configuration names: A and AAAA, nothing cached."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from stapleguard.finding import Code, Finding, find
from stapleguard.model import Json, UsageError, escape

FAMILIES: Final = (4, 6)
"""The kinds of address."""

_PORT: Final = 53
_KINDS: Final = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


@dataclass(frozen=True, slots=True)
class Resolution:
    """IP literals, A before AAAA; without any, `finding` says why. `seconds` is the time of both queries.

    `silent` are the families that there was no answer for.
    """

    addresses: tuple[str, ...]
    finding: Finding | None
    seconds: float
    silent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reply:
    addresses: tuple[str, ...]
    code: Code | None = None
    rcode: str = ""
    text: str = ""


def ask(server: str, name: str, timeout: float, families: Sequence[int] = FAMILIES) -> Resolution:
    """Ask `server` ("ip", "ip:port" or "[v6]:port") for the addresses of `name`, in `timeout` seconds.

    Other `families` than these are not asked for.

    NXDOMAIN or no records is dns.name-not-found, any other response code dns.server-failure, no
    usable answer (nothing, a closed port, not DNS) dns.timeout. UDP, and TCP where the answer was
    truncated (RFC 1035 section 4.2). Raises UsageError for a server that is no address.
    """
    address, port = _server(server)
    started = time.monotonic()
    replies: list[_Reply] = []
    for already, family in enumerate(families):
        # Half for the first question, what is left for the second.
        left = timeout - (time.monotonic() - started)
        share = left / (len(families) - already)
        replies.append(_query(address, port, name, _KINDS[family], max(share, 0.001)))
    seconds = time.monotonic() - started
    addresses = tuple(dict.fromkeys(one for reply in replies for one in reply.addresses))
    if addresses:
        given = zip(families, replies, strict=True)
        silent = tuple(family for family, reply in given if reply.code is Code.DNS_TIMEOUT)
        return Resolution(addresses, None, seconds, silent)
    # No record of one kind is ordinary; a failure of either kind says more than that.
    worst = min(replies, key=lambda reply: reply.code is Code.DNS_NAME_NOT_FOUND)
    evidence: dict[str, Json] = {
        "server": escape(server),
        "address": address,
        "port": port,
        "name": escape(name),
        "rcode": worst.rcode or None,
        "seconds": round(seconds, 3),
    }
    only = "" if len(families) > 1 else f" (asked for IPv{families[0]} only)"
    message = f"{worst.text} from the resolver {escape(server)}{only}"
    return Resolution(
        (), find(worst.code or Code.DNS_NAME_NOT_FOUND, escape(name), message, evidence=evidence), seconds
    )


def question(server: str, name: str) -> tuple[str, int, bytes] | None:
    """Return the address and the port of a server and a query for it in wire format; None for no address."""
    try:
        address, port = _server(server)
        return address, port, dns.message.make_query(dns.name.from_text(name), dns.rdatatype.A).to_wire()
    except (UsageError, dns.exception.DNSException, UnicodeError):
        return None


def _server(text: str) -> tuple[str, int]:
    host, port = text, str(_PORT)
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or (port if closing else "")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = str(ipaddress.ip_address(host))
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        address, number = "", 0
    if not address or not 0 < number < 1 << 16:
        raise UsageError(
            f"the resolver is no address: {escape(text)}",
            "write it as 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53",
        )
    return address, number


def _query(address: str, port: int, name: str, kind: dns.rdatatype.RdataType, timeout: float) -> _Reply:
    try:
        question = dns.message.make_query(dns.name.from_text(name), kind)
    except (dns.exception.DNSException, UnicodeError):
        return _Reply((), Code.DNS_NAME_NOT_FOUND, "", "no question, for it is no host name: no answer")
    try:
        reply, _ = dns.query.udp_with_fallback(question, address, timeout, port)
    except dns.exception.Timeout:
        return _Reply((), Code.DNS_TIMEOUT, "", "no answer within the time")
    except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
        return _Reply((), Code.DNS_TIMEOUT, "", f"no usable answer ({type(error).__name__})")
    rcode = dns.rcode.to_text(reply.rcode())
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _Reply((), Code.DNS_SERVER_FAILURE, rcode, rcode)
    addresses = tuple(str(item) for row in reply.answer if row.rdtype == kind for item in row)
    if addresses:
        return _Reply(addresses, None, rcode)
    return _Reply((), Code.DNS_NAME_NOT_FOUND, rcode, "NXDOMAIN" if rcode == "NXDOMAIN" else "no address")
