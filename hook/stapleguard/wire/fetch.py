"""Asking an OCSP responder, and fetching an issuer: plain HTTP to an address that was checked first.

The URL comes out of a certificate, so whoever made that chooses where this process connects to:
the name is resolved once, each address is judged, and the connection goes to the literal judged.
No environment, netrc, cookie or library redirect takes part: requests' adapter is used without a
session (a session also reads the whole body of a redirect into memory).
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from stapleguard.finding import Code, Finding, find
from stapleguard.model import Json, UsageError, escape
from stapleguard.wire.faults import classify, dns_code
from stapleguard.wire.policy import FetchPolicy

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_GET_LIMIT: Final = 255  # RFC 6960 appendix A.1: GET is for what encodes to no more
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
# Not public, though ipaddress of this or an older Python calls them global (RFC 6890, RFC 9637); the
# last one is the metadata and agent service of a large cloud.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(one) for one in ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "168.63.129.16/32")
)
_DEFAULT_PORT: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_URL: Final = re.compile(r"[!-\[\]-~]+", re.ASCII)  # visible ASCII without the backslash
_KEEPS_METHOD: Final = frozenset({307, 308})
_REDIRECTS: Final = frozenset({301, 302, 303}) | _KEEPS_METHOD
_NEXT_ADDRESS: Final = frozenset({Code.NET_REFUSED, Code.NET_BLOCKED, Code.NET_RESET})
_TRY_POST: Final = frozenset({Code.RESPONDER_HTTP_ERROR, Code.RESPONDER_NOT_OCSP})


@dataclass(frozen=True, slots=True)
class Fetch:
    """What came back: `body` as received (None when nothing usable did, then `findings` say why).

    `address` is the IP literal last connected to (None before that, or through a proxy), `seconds`
    the whole time it took, `date` the responder's HTTP Date (UTC), where it sent one.
    """

    body: bytes | None
    findings: tuple[Finding, ...]
    seconds: float
    address: str | None
    date: datetime | None
    validators: Validators
    unchanged: bool
    """The responder says that what the validators given belong to is still its newest answer (304)."""
    location: str = ""
    """Where a redirect leads that was not followed."""


@dataclass(frozen=True, slots=True)
class Validators:
    """ETag and Last-Modified of an answer (RFC 9110 section 8.8), '' where there is none."""

    etag: str = ""
    last_modified: str = ""


NO_VALIDATORS: Final = Validators()


def ocsp_exchange(url: str, request: bytes, policy: FetchPolicy, known: Validators = NO_VALIDATORS) -> Fetch:
    """Send an OCSPRequest (DER) to an http URL; the body claims to be an OCSPResponse (DER), <= 64 KiB.

    GET where the encoded URL has at most 255 bytes; POST otherwise, or after a GET that failed by
    HTTP status, content type or empty body (RFC 6960 appendix A.1). A GET is conditional on `known`.
    Raises UsageError for a policy that cannot be read.
    """

    def work(run: _Run) -> _Answer:
        run.known = known
        findings: tuple[Finding, ...] = ()
        encoded = f"{url.rstrip('/')}/{quote(base64.b64encode(request).decode(), safe='')}"
        if len(encoded) <= _GET_LIMIT and "?" not in url:
            answer = _request(run, encoded, None)
            findings = answer.findings
            unusable = {found.code for found in findings} <= _TRY_POST and not answer.unchanged
            if answer.body is not None or not unusable:
                return answer
        answer = _request(run, url, request)
        return (
            answer if answer.body is not None else _Answer(None, (*findings, *answer.findings), answer.date)
        )

    return _bounded(url, _Rules(("http",), "application/ocsp-response", 64 << 10), policy, work)


def ocsp_exchange_at(url: str, address: str, request: bytes, method: str, policy: FetchPolicy) -> Fetch:
    """Make one request at one address (a literal; "" is the proxy's way), as a web server does.

    No second method, no other address, and a redirect is the answer that it is: a finding whose evidence
    has the `status` and the `location`. Raises UsageError for a policy that cannot be read.
    """

    def work(run: _Run) -> _Answer:
        run.method = method
        encoded = f"{url.rstrip('/')}/{quote(base64.b64encode(request).decode(), safe='')}"
        target = _target(encoded if method == "GET" else url, run.rules.schemes)
        if isinstance(target, str):
            return _Answer(None, (run.failed(Code.RESPONDER_FORBIDDEN_ADDRESS, target),))
        run.port, run.address = target.port, address or None
        if address and not _allowed(ipaddress.ip_address(address), run.networks):
            text = f"the address {address} is special and not allowed"
            return _Answer(None, (run.failed(Code.RESPONDER_FORBIDDEN_ADDRESS, text),))
        answer = _send(run, target, address or target.host, 1, None if method == "GET" else request)
        if not answer.location:
            return answer
        led = urljoin(url, answer.location)
        text = f"the responder redirects to {escape(led)}, which no web server follows"
        found = run.failed(Code.RESPONDER_HTTP_ERROR, text)
        return _Answer(None, (found,), answer.date, led)

    rules = _Rules(("http",), "application/ocsp-response", 64 << 10)
    return _bounded(url, rules, replace(policy, proxy="") if address else policy, work)


def fetch_issuer(url: str, policy: FetchPolicy) -> Fetch:
    """GET a caIssuers URL (http or https, RFC 5280 4.2.2.1); DER, PEM or PKCS#7 as received, <= 1 MiB.

    Raises UsageError for a policy that cannot be read.
    """
    rules = _Rules(("http", "https"), "", 1 << 20)
    return _bounded(url, rules, policy, lambda run: _request(run, url, None))


@dataclass(frozen=True, slots=True)
class _Rules:
    schemes: tuple[str, ...]
    media_type: str  # '' = any
    limit: int  # bytes of body


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes | None
    findings: tuple[Finding, ...]
    date: datetime | None = None
    location: str = ""
    validators: Validators = NO_VALIDATORS
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    host: str  # a name or an IP literal without brackets
    port: int
    path: str  # with the query

    def at(self, host: str) -> str:
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{self.port}{self.path}"

    @property
    def host_header(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == _DEFAULT_PORT[self.scheme] else f"{shown}:{self.port}"


@dataclass(slots=True)
class _Run:
    """One bounded exchange; written by its thread, read by the caller when the time is over."""

    url: str
    rules: _Rules
    networks: tuple[_Network, ...]
    proxy: str
    started: float
    deadline: float
    pinned: tuple[_Address, ...] = ()
    host: str = ""
    port: int | None = None
    address: str | None = None
    method: str = ""
    known: Validators = NO_VALIDATORS
    resolving: bool = False
    sending: bool = False
    socket: socket.socket | None = None

    @property
    def remaining(self) -> float:
        return max(self.deadline - time.monotonic(), 0.001)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def failed(self, code: Code, message: str, status: int | None = None) -> Finding:
        evidence: dict[str, Json] = {
            "url": escape(self.url),
            "address": self.address,
            "port": self.port,
            "method": self.method or None,
            "status": status,
            "seconds": round(time.monotonic() - self.started, 3),
        }
        return find(code, escape(self.url), message, evidence=evidence)

    def expired(self) -> Finding:
        limit = f"within {self.deadline - self.started:g} seconds"
        if self.resolving:
            return self.failed(Code.DNS_TIMEOUT, f"the name was not resolved {limit}")
        # The time to connect ends earlier than the whole, so this one is connected.
        if self.sending:
            return self.failed(Code.RESPONDER_SLOW, f"connected, but no whole answer {limit}")
        return self.failed(Code.NET_BLOCKED, f"no connection {limit}")


def _bounded(url: str, rules: _Rules, policy: FetchPolicy, work: Callable[[_Run], _Answer]) -> Fetch:
    # getaddrinfo has no timeout and a socket timeout starts anew with each byte: only a thread that
    # is left behind keeps the total. Its socket is shut down, or a trickle of headers would keep
    # thread and socket for as long as the peer likes.
    networks = _networks(policy.allow_addresses)
    if policy.proxy and urlsplit(policy.proxy).scheme not in _DEFAULT_PORT:
        raise UsageError("the proxy is no http URL", "write it as http://host:port")
    started = time.monotonic()
    end = started + policy.timeout
    run = _Run(url, rules, networks, policy.proxy, started, end, _pinned(policy.addresses), policy.host)
    future: Future[_Answer] = Future()

    def target() -> None:
        try:
            future.set_result(work(run))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            future.set_exception(error)

    thread = threading.Thread(target=target, name="stapleguard-fetch", daemon=True)
    thread.start()
    thread.join(policy.timeout)
    if future.done():
        answer = future.result()
    else:
        # First what is known, then the end: the thread would call its own shutdown the peer's.
        answer = _Answer(None, (run.expired(),))
        if run.socket is not None:
            with suppress(OSError):
                run.socket.shutdown(socket.SHUT_RDWR)
    seconds = time.monotonic() - started
    told = (answer.date, answer.validators, answer.unchanged, answer.location)
    return Fetch(answer.body, answer.findings, seconds, run.address, *told)


def _pinned(addresses: tuple[str, ...]) -> tuple[_Address, ...]:
    try:
        return tuple(ipaddress.ip_address(one) for one in addresses)
    except ValueError as error:
        raise UsageError(f"not an address: {escape(str(error))}", "write it as 192.0.2.1") from error


def _networks(cidrs: tuple[str, ...]) -> tuple[_Network, ...]:
    try:
        return tuple(ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)
    except ValueError as error:
        raise UsageError(
            f"an allowed address is no CIDR: {escape(str(error))}", "write it as 192.0.2.0/24"
        ) from error


def _request(run: _Run, url: str, body: bytes | None) -> _Answer:
    """One request, and the one redirect it may lead to; what it leads to is judged like the first URL."""
    answer = _one(run, url, body)
    if not answer.location:
        return answer
    run.url = urljoin(url, answer.location)
    again = _one(run, run.url, body)
    if again.location:
        return _Answer(None, (run.failed(Code.RESPONDER_HTTP_ERROR, "more than one redirect"),), again.date)
    return again


def _one(run: _Run, url: str, body: bytes | None) -> _Answer:
    run.url, run.address, run.port = url, None, None
    run.method = "GET" if body is None else "POST"
    target = _target(url, run.rules.schemes)
    if isinstance(target, str):
        return _Answer(None, (run.failed(Code.RESPONDER_FORBIDDEN_ADDRESS, target),))
    run.port = target.port
    literal = _literal(target.host)
    if run.pinned:
        found: list[_Address] | Finding = [*run.pinned]
    elif run.proxy and literal is None:
        return _send(run, target, target.host, 1, body)
    else:
        found = [literal] if literal is not None else _resolve(run, target)
    if isinstance(found, Finding):
        return _Answer(None, (found,))
    allowed = [address for address in found if _allowed(address, run.networks)]
    if not allowed:
        run.address = str(found[0])
        text = f"the address {run.address} is special and not allowed"
        return _Answer(None, (run.failed(Code.RESPONDER_FORBIDDEN_ADDRESS, text),))
    findings: tuple[Finding, ...] = ()
    for position, address in enumerate(allowed):
        if run.over:
            break
        run.address = str(address)
        answer = _send(run, target, run.address, len(allowed) - position, body)
        if not answer.findings or answer.findings[-1].code not in _NEXT_ADDRESS:
            return answer
        findings = (*findings, *answer.findings)
    return _Answer(None, findings or (run.expired(),))


def _target(url: str, schemes: tuple[str, ...]) -> _Target | str:
    """Split a URL into its parts, or say why it is not asked."""
    if not _URL.fullmatch(url):
        return "the URL has characters that no URL has"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL is malformed"
    if parts.scheme not in schemes:
        return f"the scheme is not {' or '.join(schemes)}"
    if "@" in parts.netloc:
        return "the URL has user information"
    host = parts.hostname or ""
    if not host or port == 0 or not (_HOST.fullmatch(host) or _literal(host)):
        return "the URL has no usable host and port"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, host, port or _DEFAULT_PORT[parts.scheme], path)


def _literal(host: str) -> _Address | None:
    """Read a host as an address, in any form that a resolver takes (127.1, 0x7f000001)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _resolve(run: _Run, target: _Target) -> list[_Address] | Finding:
    run.resolving = True
    try:
        rows = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return run.failed(dns_code(error), f"{target.host}: {escape(error.strerror or str(error))}")
    except UnicodeError:  # an empty label, or one longer than 63
        return run.failed(Code.DNS_NAME_NOT_FOUND, f"{escape(target.host)} is no host name")
    finally:
        run.resolving = False
    return list(dict.fromkeys(ipaddress.ip_address(row[4][0]) for row in rows))


def _allowed(address: _Address, networks: tuple[_Network, ...]) -> bool:
    """Whether an address is public (RFC 6890) or allowed; one that embeds another is judged by both."""
    inner: _Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:  # DNS64 makes these of public names on hosts without IPv4
            return _allowed(ipaddress.IPv4Address(address.packed[-4:]), networks)
        inner = address.ipv4_mapped or address.sixtofour
    if any(one in network for one in (address, inner) if one is not None for network in networks):
        return True
    if any(address in network for network in _SPECIAL):
        return False
    special = address.is_multicast or address.is_reserved or address.is_link_local or address.is_unspecified
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not special and not site_local and inner is None


def _send(run: _Run, target: _Target, host: str, shares: int, body: bytes | None) -> _Answer:
    """One HTTP request to `host`, which is the judged literal, or the name where a proxy resolves it."""
    headers = {
        "Host": run.host or target.host_header,
        "User-Agent": "stapleguard",
        "Accept": run.rules.media_type or "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if body is not None:
        headers["Content-Type"] = "application/ocsp-request"
    else:
        conditions = {"If-None-Match": run.known.etag, "If-Modified-Since": run.known.last_modified}
        headers |= {name: value for name, value in conditions.items() if value}
    prepared = requests.Request(run.method, target.at(host), headers=headers, data=body).prepare()
    proxies = {"http": run.proxy, "https": run.proxy} if run.proxy else {}
    adapter = HTTPAdapter()
    for manager in (adapter.poolmanager, *(adapter.proxy_manager_for(one) for one in {*proxies.values()})):
        manager.pool_classes_by_scheme = _pools(run)
    if target.scheme == "https" and not run.proxy:  # the certificate is of the name, not of the literal
        adapter.poolmanager.connection_pool_kw.update(
            server_hostname=target.host, assert_hostname=target.host
        )
    run.sending = True
    try:
        # A share of the time for each address, and less than all: see expired().
        timeout = (run.remaining * 0.9 / shares, run.remaining)
        response = adapter.send(prepared, stream=True, timeout=timeout, verify=True, proxies=proxies)
        try:
            return _receive(run, response)
        finally:
            response.close()
    except (requests.RequestException, HTTPError, http.client.HTTPException, OSError) as error:
        code, text = classify(error)
        return _Answer(None, (run.failed(code, text),))
    finally:
        run.sending = False
        adapter.close()


def _pools(run: _Run) -> dict[str, type[HTTPConnectionPool]]:
    """Make urllib3 leave each connected socket in the run, for whoever keeps the deadline."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            run.socket = self.sock

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            run.socket = self.sock

    class Http(HTTPConnectionPool):
        ConnectionCls = Plain

    class Https(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": Http, "https": Https}


def _receive(run: _Run, response: requests.Response) -> _Answer:
    status, headers = response.status_code, response.headers
    date = _date(headers.get("Date", ""))

    def failed(code: Code, text: str) -> _Answer:
        return _Answer(None, (run.failed(code, text, status),), date)

    location = headers.get("Location", "")
    if location and status in (_REDIRECTS if run.method == "GET" else _KEEPS_METHOD):
        return _Answer(None, (), date, location)
    if status == http.HTTPStatus.NOT_MODIFIED and run.method == "GET" and run.known != NO_VALIDATORS:
        return _Answer(None, (), date, validators=run.known, unchanged=True)
    if status != http.HTTPStatus.OK:
        return failed(
            Code.RESPONDER_HTTP_ERROR, f"HTTP status {status} {escape(response.reason or '', 80)}".rstrip()
        )
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if run.rules.media_type and media_type != run.rules.media_type:
        return failed(Code.RESPONDER_NOT_OCSP, f"the content type is {escape(media_type, 80) or 'missing'}")
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return failed(
            Code.RESPONDER_NOT_OCSP, f"encoded as {escape(encoding, 80)} though identity was asked for"
        )
    body = bytearray()
    for piece in response.raw.stream(8192, decode_content=False):
        body += piece
        if len(body) > run.rules.limit:
            return failed(Code.RESPONDER_TOO_LARGE, f"the body has more than {run.rules.limit} bytes")
        if run.over:
            return _Answer(None, (run.expired(),), date)
    if not body:
        return failed(Code.RESPONDER_NOT_OCSP, "the body is empty")
    validators = Validators(_token(headers.get("ETag", "")), _token(headers.get("Last-Modified", "")))
    return _Answer(bytes(body), (), date, validators=validators)


def _token(text: str) -> str:
    """Keep a validator only when it can be sent back as it is."""
    return text if len(text) <= 200 and text.isascii() and text.isprintable() else ""


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
