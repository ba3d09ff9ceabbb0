"""Many TLS handshakes at once, each a fresh full one that asks for a staple (RFC 6066 section 8).

One thread: non-blocking sockets, readiness by `selectors`. The bytes go through memory to pyOpenSSL: handed
a socket, OpenSSL ignores HelloRequest messages for as long as more of them come (one peer held the whole
thread for as long as it liked), and nothing else bounds what a peer may send. A context is shared by all
handshakes of a kind and holds no roots, so that the staple stays visible when the chain is bad. Sessions
are never resumed: a resumed session hides the staple.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import queue
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from time import monotonic
from typing import Final, TypeAlias

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from stapleguard.material import REFUSALS
from stapleguard.model import Ask, HandshakeFault, KeyType, Observation, StapleguardError, TlsVersion, escape

SocketPair: TypeAlias = "tuple[tuple[str, int], tuple[str, int]]"
"""Our address and the peer's of one open connection."""
Owners: TypeAlias = Callable[[Sequence[SocketPair]], Sequence["int | None"]]
MAX_STAPLE: Final = 65536
MAX_RECEIVED: Final = 262144
"""Bytes of one handshake: OpenSSL takes 100 KiB of certificates, the staple and the records come on top."""
_TURN: Final = 16384
_MAX_NAME: Final = 253

_VERSIONS: Final = {TlsVersion.TLS1_2: SSL.TLS1_2_VERSION, TlsVersion.TLS1_3: SSL.TLS1_3_VERSION}
_CIPHERS: Final = {
    KeyType.RSA: b"ECDHE+aRSA:DHE+aRSA",
    KeyType.ECDSA: b"ECDHE+aECDSA",
    KeyType.EDDSA: b"ECDHE+aECDSA",
}
_SIGALGS: Final = {
    KeyType.RSA: b"rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:rsa_pkcs1_sha256",
    KeyType.ECDSA: b"ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512",
    KeyType.EDDSA: b"ed25519:ed448",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for the connection and for the handshake of each, and how many run at once."""

    connect: float = 5.0
    handshake: float = 5.0
    concurrency: int = 64


class _Phase(Enum):
    CONNECT = "connect"
    HANDSHAKE = "handshake"


@dataclass(slots=True)
class _Attempt:
    index: int
    ask: Ask
    at: datetime
    begun: float
    socket: socket.socket
    deadline: float
    phase: _Phase = _Phase.CONNECT
    connection: SSL.Connection | None = None
    received: int = 0
    unsent: bytes = b""
    staple: list[bytes] = field(default_factory=list)
    done: Observation | None = None


def addresses(host: str, timeout: float) -> tuple[str, ...]:
    """Return every A and AAAA address of `host` by the system's resolver, in its order; empty when none."""
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    answers: queue.Queue[tuple[str, ...]] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = []
        answers.put(tuple(dict.fromkeys(str(one[4][0]) for one in found)))

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return ()


def observe(
    asks: Sequence[Ask], limits: Limits, *, now: Callable[[], datetime], owners: Owners | None = None
) -> list[Observation]:
    """Make the handshakes and return one observation for each ask, in order.

    With `owners`, the completed connections of a batch stay open until it was asked once which process
    owns the other end of each; without, each is closed at once.
    """
    observations: list[Observation] = []
    for start in range(0, len(asks), limits.concurrency):
        batch = asks[start : start + limits.concurrency]
        observations += _Batch(batch, limits, now, owners).run()
    return observations


class _Batch:
    def __init__(
        self, asks: Sequence[Ask], limits: Limits, now: Callable[[], datetime], owners: Owners | None
    ) -> None:
        self.limits = limits
        self.now = now
        self.owners = owners
        self.selector = selectors.DefaultSelector()
        self.asks = asks
        self.attempts: list[_Attempt] = []

    def run(self) -> list[Observation]:
        try:
            for index, ask in enumerate(self.asks):
                self.attempts.append(self._begin(index, ask))
            while waiting := [one for one in self.attempts if one.done is None]:
                left = min(one.deadline for one in waiting) - monotonic()
                for key, _ in self.selector.select(max(0.0, left)):
                    self._advance(key.data)
                for one in waiting:
                    if one.done is None and monotonic() >= one.deadline:
                        slow = one.phase is _Phase.CONNECT
                        fault = HandshakeFault.BLOCKED if slow else HandshakeFault.STALLED
                        what = "no connection" if slow else "the handshake did not end"
                        limit = self.limits.connect if slow else self.limits.handshake
                        self._fail(one, fault, f"{what} within {limit:g} s")
            return self._owned()
        finally:
            for one in self.attempts:
                one.socket.close()
            self.selector.close()

    def _begin(self, index: int, ask: Ask) -> _Attempt:
        begun = monotonic()
        address, port = ask.endpoint.address, ask.endpoint.port
        opened = _socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        attempt = _Attempt(index, ask, self.now(), begun, opened, begun + self.limits.connect)
        if not _is_address(address):
            # A name would be looked up here, for as long as that takes; "" would be this host.
            self._fail(attempt, HandshakeFault.NAME, f"no address: {escape(address) or 'empty'}")
            return attempt
        try:
            status = opened.connect_ex((address, port))
        except OSError as error:
            self._fail(attempt, HandshakeFault.BLOCKED, escape(str(error)))
            return attempt
        if status in (0, errno.EINPROGRESS):
            self.selector.register(opened, selectors.EVENT_WRITE, attempt)
        else:
            self._fail(attempt, _connect_fault(status), errno.errorcode.get(status, str(status)))
        return attempt

    def _advance(self, attempt: _Attempt) -> None:
        if attempt.done is not None:
            return
        if attempt.phase is _Phase.CONNECT:
            status = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                self._fail(attempt, _connect_fault(status), errno.errorcode.get(status, str(status)))
                return
            try:
                attempt.connection = _connection(attempt)
            except _CannotPin as error:
                self._fail(attempt, HandshakeFault.ALERT, str(error))
                return
            except UnicodeError:
                name = escape(attempt.ask.endpoint.server_name)
                self._fail(attempt, HandshakeFault.NAME, f"{name} cannot be sent as a server name")
                return
            attempt.phase = _Phase.HANDSHAKE
            attempt.deadline = monotonic() + self.limits.handshake
            data = b""
        elif attempt.unsent:
            data = b""
        else:
            try:
                data = attempt.socket.recv(_TURN)
            except BlockingIOError:
                return
            except OSError as error:
                self._closed(attempt, errno.errorcode.get(error.errno or 0, type(error).__name__))
                return
            if not data:
                self._closed(attempt, "unexpected end")
                return
            attempt.received += len(data)
            if attempt.received > MAX_RECEIVED:
                text = f"{attempt.received} bytes came and the handshake did not end"
                self._fail(attempt, HandshakeFault.ALERT, text)
                return
        self._step(attempt, data)

    def _step(self, attempt: _Attempt, data: bytes) -> None:
        """Give OpenSSL what came, and the peer what OpenSSL makes of it."""
        connection = attempt.connection
        assert connection is not None  # noqa: S101 - narrows the type
        failed: tuple[HandshakeFault, str] | None = None
        ended = False
        if data:
            connection.bio_write(data)
        try:
            connection.do_handshake()
            ended = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            failed = _tls_fault(error)
        try:
            attempt.unsent += _produced(connection)
            if attempt.unsent:
                attempt.unsent = attempt.unsent[attempt.socket.send(attempt.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            text = errno.errorcode.get(error.errno or 0, type(error).__name__)
            failed = failed or (HandshakeFault.RESET, f"closed during the handshake ({text})")
        if failed:
            self._fail(attempt, *failed)
        elif ended and not attempt.unsent:
            self._complete(attempt)
        else:
            self._wait(attempt, selectors.EVENT_WRITE if attempt.unsent else selectors.EVENT_READ)

    def _wait(self, attempt: _Attempt, events: int) -> None:
        if self.selector.get_key(attempt.socket).events != events:
            self.selector.modify(attempt.socket, events, attempt)

    def _closed(self, attempt: _Attempt, why: str) -> None:
        self._fail(attempt, HandshakeFault.RESET, f"closed during the handshake ({why})")

    def _complete(self, attempt: _Attempt) -> None:
        connection = attempt.connection
        assert connection is not None  # noqa: S101 - narrows the type
        try:
            chain = connection.get_peer_cert_chain(as_cryptography=True) or []
        except REFUSALS as error:
            text = f"a certificate that cannot be read ({escape(str(error))})"
            self._fail(attempt, HandshakeFault.ALERT, text)
            return
        staple = attempt.staple[0] if attempt.staple and attempt.staple[0] else None
        if staple is not None and len(staple) > MAX_STAPLE:
            self._fail(attempt, HandshakeFault.ALERT, f"a staple of {len(staple)} bytes is refused unread")
            return
        self.selector.unregister(attempt.socket)
        attempt.done = Observation(
            attempt.ask,
            attempt.at,
            monotonic() - attempt.begun,
            connection.get_protocol_version_name(),
            tuple(one.public_bytes(serialization.Encoding.DER) for one in chain),
            staple,
        )
        if self.owners is None:
            attempt.socket.close()

    def _fail(self, attempt: _Attempt, fault: HandshakeFault, detail: str) -> None:
        if attempt.socket.fileno() in self.selector.get_map():
            self.selector.unregister(attempt.socket)
        attempt.socket.close()
        attempt.done = Observation(
            attempt.ask, attempt.at, monotonic() - attempt.begun, fault=fault, detail=detail
        )

    def _owned(self) -> list[Observation]:
        done = [one.done for one in self.attempts if one.done is not None]
        if self.owners is None:
            return done
        opened = [one for one in self.attempts if one.done is not None and one.done.fault is None]
        pairs: list[SocketPair] = []
        for one in opened:
            here, there = one.socket.getsockname(), one.socket.getpeername()
            pairs.append(((here[0], here[1]), (there[0], there[1])))
        workers = dict(zip((one.index for one in opened), self.owners(pairs), strict=True)) if pairs else {}
        return [_with_worker(one, workers.get(index)) for index, one in enumerate(done)]


def _with_worker(seen: Observation, worker: int | None) -> Observation:
    return Observation(
        seen.ask,
        seen.at,
        seen.seconds,
        seen.protocol,
        seen.chain,
        seen.staple,
        worker,
        seen.fault,
        seen.detail,
    )


class _CannotPin(Exception):
    """The installed pyOpenSSL has no way to ask for that key type."""


def _connection(attempt: _Attempt) -> SSL.Connection:
    ask = attempt.ask
    connection = SSL.Connection(_context(ask.tls, ask.key_type), None)
    # The callback finds its own box here: an exception or a shared list would reach another connection.
    connection.set_app_data(attempt.staple)
    name = ask.endpoint.server_name
    if name and not _is_address(name):
        connection.set_tlsext_host_name(_sni(name))
    connection.request_ocsp()
    connection.set_connect_state()
    return connection


def _sni(name: str) -> bytes:
    """Encode a server name (RFC 6066 section 3: A-labels, no trailing dot); UnicodeError when it is none."""
    encoded = name.removesuffix(".").encode("idna")
    if len(encoded) > _MAX_NAME or not encoded.decode().isprintable():
        raise UnicodeError("no host name")
    return encoded


def _produced(connection: SSL.Connection) -> bytes:
    try:
        return connection.bio_read(_TURN)
    except SSL.WantReadError:
        return b""


def _socket(family: int) -> socket.socket:
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        return socket.socket(family, kind)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT and family == socket.AF_INET6:
            # A host without IPv6: on this one every IPv6 address fails by itself.
            return socket.socket(socket.AF_INET, kind)
        raise StapleguardError(
            f"cannot open a socket: {error.strerror}", "allow this process more open files (ulimit -n)"
        ) from error


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@functools.cache
def _context(tls: TlsVersion | None, key_type: KeyType | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if tls is not None:
        context.set_min_proto_version(_VERSIONS[tls])
        context.set_max_proto_version(_VERSIONS[tls])
    if key_type is not None:
        context.set_cipher_list(_CIPHERS[key_type])
        # The aECDSA suites of TLS 1.2 are those of EdDSA too (RFC 8422 section 5.10).
        if tls is not TlsVersion.TLS1_2 or key_type is KeyType.EDDSA:
            _pin_signature_algorithms(context, _SIGALGS[key_type])
    context.set_ocsp_client_callback(_keep_staple)
    return context


def _pin_signature_algorithms(context: SSL.Context, names: bytes) -> None:
    """Ask for one key type under TLS 1.3; pyOpenSSL wraps no call for it, the binding beneath has one."""
    lib = getattr(SSL, "_lib", None)
    pin = getattr(lib, "SSL_CTX_set1_sigalgs_list", None)
    raw = getattr(context, "_context", None)
    if pin is None or raw is None or pin(raw, names) != 1:
        raise _CannotPin("this pyOpenSSL cannot pin the key type under TLS 1.3")


def _keep_staple(connection: SSL.Connection, staple: bytes, _data: object) -> bool:
    """Keep what came; raising or returning False here would abort this or another handshake."""
    box = connection.get_app_data()
    if isinstance(box, list):
        box.append(staple)
    return True


def _connect_fault(status: int) -> HandshakeFault:
    if status == errno.ECONNREFUSED:
        return HandshakeFault.REFUSED
    if status == errno.ECONNRESET:
        return HandshakeFault.RESET
    return HandshakeFault.BLOCKED


def _tls_fault(error: SSL.Error) -> tuple[HandshakeFault, str]:
    reasons = (
        [str(entry[-1]) for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    )
    text = escape("; ".join(reasons) or "the handshake failed")
    plain = ("wrong version number", "http request", "packet length too long", "unknown protocol")
    if any(mark in reason for reason in reasons for mark in plain):
        return HandshakeFault.NOT_TLS, f"what answers is not TLS ({text})"
    if any("unexpected eof" in reason for reason in reasons):
        return HandshakeFault.RESET, f"closed during the handshake ({text})"
    return HandshakeFault.ALERT, text
