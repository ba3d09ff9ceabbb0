"""TCP connections on which nobody has spoken yet, and the addresses that they lead to.

On its own host the kernel tells which worker has accepted a connection before a byte is said on it: so a
worker can be chosen first, and the costly handshake made only with those that still have to be seen.
"""

from __future__ import annotations

import errno
import ipaddress
import queue
import select
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeAlias

from stapleguard.model import Endpoint, HandshakeFault, StapleguardError, escape
from stapleguard.wire.tls import is_address

SocketPair: TypeAlias = "tuple[tuple[str, int], tuple[str, int]]"
"""Our address and the peer's of one open connection."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """An open connection to an endpoint; `worker` is the process that has accepted it, if it is known."""

    socket: socket.socket
    pair: SocketPair
    worker: int | None = None

    def hang_up(self) -> None:
        """Close it so that no port of ours stays busy (a reset: there is nothing to be delivered)."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()


def dial(endpoint: Endpoint, count: int, seconds: float) -> tuple[Line, ...]:
    """Open up to `count` connections within `seconds`, without a word; those that fail are left out."""
    poll, opening = select.poll(), dict[int, socket.socket]()
    lines: list[Line] = []
    for _ in range(count):
        found = opened(endpoint)
        if isinstance(found, socket.socket):
            opening[found.fileno()] = found
            poll.register(found, select.POLLOUT)
    end = monotonic() + seconds
    try:
        while opening and (left := end - monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                poll.unregister(descriptor)
                one = opening.pop(descriptor)
                try:
                    here, there = one.getsockname(), one.getpeername()
                    lines.append(Line(one, ((here[0], here[1]), (there[0], there[1]))))
                except OSError:
                    one.close()
    finally:
        for one in opening.values():
            one.close()
    return tuple(lines)


def opened(endpoint: Endpoint) -> socket.socket | tuple[HandshakeFault, str]:
    """Begin a connection, without waiting for it; or say why there is none to wait for."""
    address = endpoint.address
    if not is_address(address):
        # A name would be looked up here, for as long as that takes; "" would be this host.
        return HandshakeFault.NAME, f"no address: {escape(address) or 'empty'}"
    made = _socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        status = made.connect_ex((address, endpoint.port))
    except (OSError, OverflowError) as error:
        made.close()
        return HandshakeFault.BLOCKED, escape(str(error))
    if status in (0, errno.EINPROGRESS):
        return made
    made.close()
    return connect_fault(status), errno.errorcode.get(status, str(status))


def connect_fault(status: int) -> HandshakeFault:
    """Say what the kernel's error for a connection means."""
    if status == errno.ECONNREFUSED:
        return HandshakeFault.REFUSED
    if status == errno.ECONNRESET:
        return HandshakeFault.RESET
    return HandshakeFault.BLOCKED


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


def addresses(host: str, timeout: float) -> tuple[str, ...]:
    """Return every A and AAAA address of `host` by the system's resolver, in its order; empty when none."""
    return addresses_of((host,), timeout)[host]


def addresses_of(hosts: Sequence[str], timeout: float) -> dict[str, tuple[str, ...]]:
    """Resolve many names at once, all within `timeout` seconds; empty for one that has no address.

    getaddrinfo has no timeout, so it runs in threads that are left behind when the time is over.
    """
    found: dict[str, tuple[str, ...]] = dict.fromkeys(hosts, ())
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, tuple[str, ...]]] = queue.SimpleQueue()
    open_ = 0
    for host in found:
        try:
            found[host] = (str(ipaddress.ip_address(host)),)
        except ValueError:
            waiting.put(host)
            open_ += 1

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                host = waiting.get_nowait()
                answers.put((host, _resolved(host)))

    for _ in range(min(open_, _RESOLVERS)):
        threading.Thread(target=work, daemon=True).start()
    end = monotonic() + timeout
    with suppress(queue.Empty):
        for _ in range(open_):
            host, resolved = answers.get(timeout=max(0.0, end - monotonic()))
            found[host] = resolved
    return found


_RESOLVERS: Final = 16


def _resolved(host: str) -> tuple[str, ...]:
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(one[4][0]) for one in rows))


def is_local(address: str) -> bool:
    """Whether an address is one of this host's own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((address, 0))
    except (OSError, OverflowError):
        return False
    return True
