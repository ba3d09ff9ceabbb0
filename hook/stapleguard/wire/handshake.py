"""Many TLS handshakes at once, each a fresh full one that asks for a staple (RFC 6066 section 8).

One thread, non-blocking sockets, readiness by epoll. A slow or hostile peer costs one place among those
that run at once until its own deadline, and nobody else anything. How many run at once follows from what
is measured on the way: enough to fill the round trips with work, not so many that our own queue looks
like a slow server.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from time import monotonic
from typing import Final, TypeAlias

from OpenSSL import SSL

from stapleguard.material import REFUSALS
from stapleguard.model import Ask, HandshakeFault, Observation, escape
from stapleguard.wire import tls
from stapleguard.wire.line import Line, SocketPair, connect_fault, opened
from stapleguard.wire.pace import Pace
from stapleguard.wire.starttls import Dialogue, NoStartTls, dialogue

Owners: TypeAlias = Callable[[Sequence[SocketPair]], Sequence["int | None"]]
MAX_STAPLE: Final = 65536
MAX_RECEIVED: Final = 262144
"""Bytes of one handshake: OpenSSL takes 100 KiB of certificates, the staple and the records come on top."""
_STARTS_A_TURN: Final = 64
_ROUND_TRIPS: Final = {"TLSv1.3": 2}
"""Of a full handshake until our last flight is sent, the connection included."""
_MOST_ROUND_TRIPS: Final = 3
_OWNERS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for each connection, handshake and STARTTLS dialogue; for all together; how many at once.

    Mail servers make a stranger wait for their first word (Postfix's postscreen 6 s, Sendmail 5 s), so a
    dialogue has more time than a handshake. Fewer than `concurrency` run where more would only wait for
    this process.
    """

    connect: float = 5.0
    handshake: float = 5.0
    total: float | None = None
    concurrency: int = 256
    dialogue: float = 10.0


class _Phase(Enum):
    CONNECT = "connect"
    DIALOGUE = "dialogue"
    HANDSHAKE = "handshake"


@dataclass(slots=True)
class _Attempt:
    index: int
    ask: Ask
    at: datetime
    begun: float
    socket: socket.socket | None
    deadline: float
    worker: int | None = None
    phase: _Phase = _Phase.CONNECT
    events: int = 0
    dialogue: Dialogue | None = None
    connection: SSL.Connection | None = None
    received: int = 0
    unsent: bytes = b""
    staple: list[bytes] = field(default_factory=list)
    done: Observation | None = None


def observe(
    asks: Sequence[Ask],
    limits: Limits,
    *,
    now: Callable[[], datetime],
    lines: Mapping[int, Line] | None = None,
    owners: Owners | None = None,
) -> list[Observation]:
    """Make the handshakes and return one observation for each ask, in order; see `observe_each`."""
    seen = dict(observe_each(asks, limits, now=now, lines=lines, owners=owners))
    return [seen[index] for index in range(len(asks))]


def observe_each(
    asks: Iterable[Ask],
    limits: Limits,
    *,
    now: Callable[[], datetime],
    lines: Mapping[int, Line] | None = None,
    owners: Owners | None = None,
) -> Iterator[tuple[int, Observation]]:
    """Make the handshakes, giving the observation of each ask with its place as soon as it ends.

    `asks` may be endless: no more are taken than can run. For a place in `lines` the handshake is made on
    that open connection, which is closed by it. With `owners` (on this host, for a server that accepts
    only once the client has spoken) completed connections stay open until it was asked which process owns
    the other end of each.
    """
    loop = _Loop(limits, now, lines or {}, owners)
    try:
        yield from loop.run(enumerate(asks))
    finally:
        loop.close()


class _Loop:
    def __init__(
        self,
        limits: Limits,
        now: Callable[[], datetime],
        lines: Mapping[int, Line],
        owners: Owners | None,
    ) -> None:
        self.limits = limits
        self.now = now
        self.lines = lines
        self.owners = owners
        self.epoll = select.epoll()
        self.active: dict[int, _Attempt] = {}
        # All attempts have the same time for a phase, so the order of beginning is that of the deadlines.
        self.queues: dict[_Phase, deque[_Attempt]] = {phase: deque() for phase in _Phase}
        self.finished: deque[_Attempt] = deque()
        self.held: list[_Attempt] = []
        self.pace = Pace(limits.concurrency)
        self.end = None if limits.total is None else monotonic() + limits.total
        self.more = True

    def close(self) -> None:
        for one in (*self.active.values(), *self.held):
            if one.socket is not None:
                one.socket.close()
        self.epoll.close()

    def run(self, asks: Iterator[tuple[int, Ask]]) -> Iterator[tuple[int, Observation]]:
        while self.more or self.active or self.finished or self.held:
            if self.more:
                self.more = self._fill(asks)
            if self.active:
                for descriptor, _ in self.epoll.poll(self._patience()):
                    attempt = self.active.get(descriptor)
                    if attempt is not None:
                        self._advance(attempt)
            self._expire()
            if self.held and (len(self.held) >= _OWNERS_AT_ONCE or not self.active):
                self._identify()
            while self.finished:
                one = self.finished.popleft()
                assert one.done is not None  # noqa: S101 - narrows the type
                yield one.index, one.done

    def _fill(self, asks: Iterator[tuple[int, Ask]]) -> bool:
        """Begin as many as may run; False when there are no more."""
        room = self.pace.room(len(self.active), monotonic())
        for _ in range(min(room, _STARTS_A_TURN)):
            following = next(asks, None)
            if following is None:
                return False
            self._begin(*following)
        return True

    def _patience(self) -> float:
        ends = [queue[0].deadline for queue in self.queues.values() if queue]
        if self.end is not None:
            ends.append(self.end)
        if self.more:
            ends.append(self.pace.turns)
        return max(0.0, min(ends) - monotonic())

    def _expire(self) -> None:
        """Fail what is out of time; what ended or went on otherwise leaves the queues here, too."""
        at = monotonic()
        over = self.end is not None and at >= self.end
        for phase, queue in self.queues.items():
            while queue:
                first = queue[0]
                here = first.done is None and first.phase is phase
                if here and not over and first.deadline > at:
                    break
                queue.popleft()
                if here:
                    self._late(first, "before the time for all was over" if over else "")

    def _late(self, attempt: _Attempt, when: str) -> None:
        fault = HandshakeFault.BLOCKED if attempt.phase is _Phase.CONNECT else HandshakeFault.STALLED
        what, limit = {
            _Phase.CONNECT: ("no connection", self.limits.connect),
            _Phase.DIALOGUE: ("the dialogue before TLS did not end", self.limits.dialogue),
            _Phase.HANDSHAKE: ("the handshake did not end", self.limits.handshake),
        }[attempt.phase]
        self._fail(attempt, fault, f"{what} {when or f'within {limit:g} s'}")

    def _begin(self, index: int, ask: Ask) -> None:
        begun = monotonic()
        attempt = _Attempt(index, ask, self.now(), begun, None, begun + self.limits.connect)
        if self.end is not None and begun >= self.end:
            self._fail(attempt, HandshakeFault.STALLED, "not begun: the time for all was over")
            return
        line = self.lines.get(index)
        if line is not None:
            attempt.socket, attempt.worker = line.socket, line.worker
            self._enter(attempt, line.socket)
            self._connected(attempt)
            return
        found = opened(ask.endpoint)
        if not isinstance(found, socket.socket):
            self._fail(attempt, *found)
            return
        attempt.socket = found
        self._enter(attempt, found)
        self.queues[_Phase.CONNECT].append(attempt)
        self._wait(attempt, select.EPOLLOUT)

    def _enter(self, attempt: _Attempt, opened_socket: socket.socket) -> None:
        self.active[opened_socket.fileno()] = attempt
        self.pace.began(attempt.index, attempt.begun)

    def _advance(self, attempt: _Attempt) -> None:
        if attempt.phase is _Phase.CONNECT:
            self._connect(attempt)
            return
        data = b""
        if not attempt.unsent:
            received = self._receive(attempt)
            if received is None:
                return
            data = received
        if attempt.phase is _Phase.DIALOGUE:
            self._converse(attempt, data)
        else:
            self._step(attempt, data)

    def _connect(self, attempt: _Attempt) -> None:
        assert attempt.socket is not None  # noqa: S101 - narrows the type
        status = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            self._fail(attempt, connect_fault(status), errno.errorcode.get(status, str(status)))
            return
        self.pace.connected(attempt.index, attempt.socket)
        self._connected(attempt)

    def _connected(self, attempt: _Attempt) -> None:
        protocol = attempt.ask.endpoint.starttls
        if protocol is None:
            self._begin_tls(attempt)
            return
        self._enter_phase(attempt, _Phase.DIALOGUE, self.limits.dialogue)
        attempt.dialogue = dialogue(protocol)
        attempt.unsent = next(attempt.dialogue)
        self._send(attempt)

    def _enter_phase(self, attempt: _Attempt, phase: _Phase, seconds: float) -> None:
        attempt.phase = phase
        attempt.deadline = monotonic() + seconds
        self.queues[phase].append(attempt)

    def _converse(self, attempt: _Attempt, data: bytes) -> None:
        """Go on with the dialogue before TLS."""
        assert attempt.dialogue is not None  # noqa: S101 - narrows the type
        if data:
            try:
                attempt.unsent = attempt.dialogue.send(data)
            except StopIteration:
                self._begin_tls(attempt)
                return
            except NoStartTls as error:
                self._fail(attempt, HandshakeFault.NO_STARTTLS, str(error))
                return
        self._send(attempt)

    def _begin_tls(self, attempt: _Attempt) -> None:
        self._enter_phase(attempt, _Phase.HANDSHAKE, self.limits.handshake)
        try:
            attempt.connection = tls.connection(attempt.ask, attempt.staple)
        except tls.CannotPin as error:
            self._fail(attempt, HandshakeFault.ALERT, str(error))
            return
        except UnicodeError:
            name = escape(attempt.ask.endpoint.server_name)
            self._fail(attempt, HandshakeFault.NAME, f"{name} cannot be sent as a server name")
            return
        self._step(attempt, b"")

    def _receive(self, attempt: _Attempt) -> bytes | None:
        """Read one turn; None when there is nothing, or when the attempt is over."""
        assert attempt.socket is not None  # noqa: S101 - narrows the type
        try:
            data = attempt.socket.recv(tls.TURN)
        except BlockingIOError:
            return None
        except OSError as error:
            self._closed(attempt, errno.errorcode.get(error.errno or 0, type(error).__name__))
            return None
        if not data:
            self._closed(attempt, "unexpected end")
            return None
        attempt.received += len(data)
        if attempt.received > MAX_RECEIVED:
            text = f"{attempt.received} bytes came and the handshake did not end"
            self._fail(attempt, HandshakeFault.ALERT, text)
            return None
        return data

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
            failed = tls.fault(error)
        attempt.unsent += tls.produced(connection)
        # The last flight is small and the peer's answer to it is of no interest: sent, it is done.
        self._send(attempt, failed)
        if attempt.done is None and ended and not attempt.unsent:
            self._complete(attempt)

    def _send(self, attempt: _Attempt, failed: tuple[HandshakeFault, str] | None = None) -> None:
        assert attempt.socket is not None  # noqa: S101 - narrows the type
        try:
            if attempt.unsent:
                attempt.unsent = attempt.unsent[attempt.socket.send(attempt.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            text = errno.errorcode.get(error.errno or 0, type(error).__name__)
            failed = failed or (HandshakeFault.RESET, f"closed during the handshake ({text})")
        if failed:
            self._fail(attempt, *failed)
        else:
            self._wait(attempt, select.EPOLLOUT if attempt.unsent else select.EPOLLIN)

    def _wait(self, attempt: _Attempt, events: int) -> None:
        assert attempt.socket is not None  # noqa: S101 - narrows the type
        if attempt.events == events:
            return
        if attempt.events:
            self.epoll.modify(attempt.socket, events)
        else:
            self.epoll.register(attempt.socket, events)
        attempt.events = events

    def _closed(self, attempt: _Attempt, why: str) -> None:
        what = "dialogue before TLS" if attempt.phase is _Phase.DIALOGUE else "handshake"
        self._fail(attempt, HandshakeFault.RESET, f"closed during the {what} ({why})")

    def _complete(self, attempt: _Attempt) -> None:
        connection = attempt.connection
        assert connection is not None  # noqa: S101 - narrows the type
        try:
            chain = tls.chain(connection)
        except REFUSALS as error:
            text = f"a certificate that cannot be read ({escape(str(error))})"
            self._fail(attempt, HandshakeFault.ALERT, text)
            return
        staple = attempt.staple[0] if attempt.staple and attempt.staple[0] else None
        if staple is not None and len(staple) > MAX_STAPLE:
            self._fail(attempt, HandshakeFault.ALERT, f"a staple of {len(staple)} bytes is refused unread")
            return
        seconds, protocol = monotonic() - attempt.begun, connection.get_protocol_version_name()
        attempt.done = Observation(attempt.ask, attempt.at, seconds, protocol, chain, staple, attempt.worker)
        if attempt.ask.endpoint.starttls is None:  # how many round trips a dialogue takes is its own affair
            self.pace.completed(attempt.index, seconds, _ROUND_TRIPS.get(protocol, _MOST_ROUND_TRIPS))
        self._end(attempt)

    def _fail(self, attempt: _Attempt, fault: HandshakeFault, detail: str) -> None:
        seconds = monotonic() - attempt.begun
        attempt.done = Observation(
            attempt.ask, attempt.at, seconds, worker=attempt.worker, fault=fault, detail=detail
        )
        self._end(attempt)

    def _end(self, attempt: _Attempt) -> None:
        attempt.connection = attempt.dialogue = None
        assert attempt.done is not None  # noqa: S101 - narrows the type
        if attempt.socket is not None:
            self.active.pop(attempt.socket.fileno(), None)
            self.pace.ended(attempt.index)
            if self.owners is not None and attempt.done.fault is None and attempt.worker is None:
                if attempt.events:
                    self.epoll.unregister(attempt.socket)
                self.held.append(attempt)
                return
            attempt.socket.close()
        self.finished.append(attempt)

    def _identify(self) -> None:
        """Ask once who owns the other ends of the connections that are held, and let them go."""
        assert self.owners is not None  # noqa: S101 - narrows the type
        pairs: list[SocketPair] = []
        self.held.sort(key=lambda one: one.index)
        for one in self.held:
            assert one.socket is not None  # noqa: S101 - narrows the type
            here, there = one.socket.getsockname(), one.socket.getpeername()
            pairs.append(((here[0], here[1]), (there[0], there[1])))
        for one, worker in zip(self.held, self.owners(pairs), strict=True):
            assert one.socket is not None  # noqa: S101 - narrows the type
            assert one.done is not None  # noqa: S101 - narrows the type
            one.socket.close()
            one.done = _with_worker(one.done, worker)
            self.finished.append(one)
        self.held = []


def _with_worker(seen: Observation, worker: int | None) -> Observation:
    return replace(seen, worker=worker)
