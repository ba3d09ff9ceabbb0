"""Handshakes with real TLS servers of this process, and with everything that is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL, crypto
from stapleguard.material import leaf_facts
from stapleguard.model import Ask, Endpoint, HandshakeFault, KeyType, Observation, TlsVersion
from stapleguard.rehearsal.authority import Authority, Issued, LeafOptions
from stapleguard.wire.handshake import Limits, observe, observe_each
from stapleguard.wire.line import SocketPair, addresses, addresses_of, dial, is_local

pytestmark = pytest.mark.unit

NOW = datetime.now(UTC)
AUTHORITY = Authority.create(NOW)
ECDSA = AUTHORITY.issue(["example.test"], NOW)
RSA = AUTHORITY.issue(["example.test"], NOW, LeafOptions(key_type=KeyType.RSA))
STAPLE = b"\x30\x03\x0a\x01\x03"
LIMITS = Limits(connect=2, handshake=2)
Talk = Callable[[socket.socket, threading.Event], None]


@contextmanager
def listening(talk: Talk, address: str = "127.0.0.1") -> Iterator[int]:
    """Give each connection to `talk` in a thread of its own; the event tells that the test is over."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    listener = socket.create_server(
        (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
    )

    def one(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            talk(peer, over)

    def run() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=one, args=(listener.accept()[0],)))
                threads[-1].start()

    acceptor = threading.Thread(target=run)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        for thread in threads:
            thread.join()
        listener.close()


def tls(
    *issued: Issued,
    staple: bytes = b"",
    version: int | None = None,
    names: list[bytes | None] | None = None,
    extra: crypto.X509 | None = None,
) -> Talk:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    for one in issued:
        context.use_certificate(one.certificate)
        context.use_privatekey(load_pem_private_key(one.key_pem, None))  # type: ignore[arg-type]  # never a DH key
    context.add_extra_chain_cert(AUTHORITY.intermediate if extra is None else extra)
    context.set_ocsp_server_callback(lambda *_: staple)
    if version is not None:
        context.set_max_proto_version(version)
        context.set_min_proto_version(version)
    if names is not None:
        context.set_tlsext_servername_callback(lambda connection: names.append(connection.get_servername()))

    def talk(peer: socket.socket, over: threading.Event) -> None:
        peer.settimeout(None)
        connection = SSL.Connection(context, peer)
        connection.set_accept_state()
        with suppress(SSL.Error):
            connection.do_handshake()
            connection.recv(1)

    return talk


def silent(peer: socket.socket, over: threading.Event) -> None:
    over.wait(10)


def trickling(peer: socket.socket, over: threading.Event) -> None:
    peer.sendall(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03")
    while not over.wait(0.02):
        peer.sendall(b"\0")


def flooding(record: bytes) -> Talk:
    """Send the record for as long as somebody takes it (and five seconds, so that a test ends)."""

    def talk(peer: socket.socket, over: threading.Event) -> None:
        peer.recv(65536)
        end = monotonic() + 5
        while not over.is_set() and monotonic() < end:
            peer.sendall(record * 64)

    return talk


def plain_http(peer: socket.socket, over: threading.Event) -> None:
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    over.wait(10)


def closing(peer: socket.socket, over: threading.Event) -> None:
    pass


def closing_after_hello(peer: socket.socket, over: threading.Event) -> None:
    peer.recv(65536)


def ask(
    port: int,
    version: TlsVersion | None = None,
    key_type: KeyType | None = None,
    *,
    name: str = "example.test",
    address: str = "127.0.0.1",
) -> Ask:
    return Ask(Endpoint("example.test", port, name, address), version, key_type)


def look(*asks: Ask, limits: Limits = LIMITS) -> list[Observation]:
    return observe(asks, limits, now=lambda: NOW)


def served(seen: Observation) -> x509.Certificate:
    assert seen.fault is None, seen.detail
    return x509.load_der_x509_certificate(seen.chain[0])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("version", [None, *TlsVersion])
@pytest.mark.parametrize("staple", [STAPLE, b""], ids=["stapled", "bare"])
def test_chain_staple_and_version_are_told(address: str, version: TlsVersion | None, staple: bytes) -> None:
    with listening(tls(ECDSA, staple=staple), address) as port:
        wanted = ask(port, version, address=address)
        (seen,) = look(wanted)
    links = (ECDSA.certificate, AUTHORITY.intermediate)
    assert seen.chain == tuple(one.public_bytes(Encoding.DER) for one in links)
    assert (seen.ask, seen.at, seen.fault, seen.worker) == (wanted, NOW, None, None)
    assert seen.staple == (staple or None)
    assert seen.protocol == (version or TlsVersion.TLS1_3).value


def test_a_version_that_the_server_lacks() -> None:
    with listening(tls(ECDSA, version=SSL.TLS1_2_VERSION)) as port:
        refused, taken, free = look(ask(port, TlsVersion.TLS1_3), ask(port, TlsVersion.TLS1_2), ask(port))
    assert refused.fault is HandshakeFault.ALERT
    assert refused.detail
    assert (taken.protocol, free.protocol) == ("TLSv1.2", "TLSv1.2")


@pytest.mark.parametrize("version", [None, *TlsVersion])
def test_the_key_type_is_the_one_asked_for(version: TlsVersion | None) -> None:
    kinds = [KeyType.RSA, KeyType.ECDSA, KeyType.EDDSA]
    with listening(tls(RSA, ECDSA)) as port:
        *both, lacking = look(*(ask(port, version, kind) for kind in kinds))
    assert [leaf_facts(served(seen)).key_type for seen in both] == kinds[:2]
    assert (lacking.fault, lacking.chain) == (HandshakeFault.ALERT, ())


def test_the_server_name_is_sent_unless_it_is_an_address_or_empty() -> None:
    names: list[bytes | None] = []
    with listening(tls(ECDSA, names=names)) as port:
        for name in ("example.test", "", "127.0.0.1", "::1"):
            served(look(ask(port, name=name))[0])
    assert names == [b"example.test", None, None, None]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    (seen,) = look(ask(port))
    assert (seen.fault, seen.chain, seen.protocol) == (HandshakeFault.REFUSED, (), None)


def test_no_connection_within_the_limit() -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        begun = monotonic()
        (seen,) = look(ask(full.getsockname()[1]), limits=Limits(connect=0.3, handshake=30))
    assert seen.fault is HandshakeFault.BLOCKED
    assert 0.3 <= monotonic() - begun < 1.5


@pytest.mark.parametrize("talk", [silent, trickling])
def test_a_server_that_never_ends_costs_its_limit_and_no_more(talk: Talk) -> None:
    with listening(talk) as port:
        begun = monotonic()
        (seen,) = look(ask(port), limits=Limits(connect=30, handshake=0.3))
        spent = monotonic() - begun
    assert seen.fault is HandshakeFault.STALLED
    assert 0.3 <= spent < 1.5


@pytest.mark.parametrize(
    ("talk", "fault"),
    [
        (plain_http, HandshakeFault.NOT_TLS),
        (closing, HandshakeFault.RESET),
        (closing_after_hello, HandshakeFault.RESET),
    ],
)
def test_what_does_not_speak_tls(talk: Talk, fault: HandshakeFault) -> None:
    with listening(talk) as port:
        (seen,) = look(ask(port))
    assert (seen.fault, seen.chain, seen.staple) == (fault, (), None)
    assert seen.detail.isprintable()


HELLO_REQUESTS = b"\x16\x03\x03\x40\x00" + b"\x00\x00\x00\x00" * 4096
HELLO_REQUEST = b"\x16\x03\x03\x00\x04" + b"\x00\x00\x00\x00"
WARNING = b"\x15\x03\x03\x00\x02\x01\x5a"


@pytest.mark.parametrize("version", [None, TlsVersion.TLS1_2])
@pytest.mark.parametrize("record", [HELLO_REQUESTS, HELLO_REQUEST, WARNING], ids=["full", "small", "alert"])
def test_a_flood_is_cut_by_its_size_and_holds_up_no_neighbour(
    record: bytes, version: TlsVersion | None
) -> None:
    # OpenSSL skips any number of HelloRequests without coming back; the limit of time is no help then.
    with listening(flooding(record)) as bad, listening(tls(ECDSA, staple=STAPLE)) as port:
        begun = monotonic()
        cut, good = look(ask(bad, version), ask(port), limits=Limits(connect=2, handshake=30))
        spent = monotonic() - begun
    assert cut.fault is HandshakeFault.ALERT
    assert good.staple == STAPLE
    assert spent < 2


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL X509 objects:DeprecationWarning")
def test_a_certificate_that_cannot_be_read_stains_no_neighbour() -> None:
    der = bytearray(AUTHORITY.intermediate.public_bytes(Encoding.DER))
    der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = (
        3  # X.509 version 4: OpenSSL takes it, cryptography does not
    )
    odd = crypto.load_certificate(crypto.FILETYPE_ASN1, bytes(der))
    with listening(tls(ECDSA, extra=odd)) as bad, listening(tls(ECDSA, staple=STAPLE)) as port:
        unread, good = look(ask(bad), ask(port))
    assert (unread.fault, unread.chain) == (HandshakeFault.ALERT, ())
    assert "certificate" in unread.detail
    assert good.staple == STAPLE


@pytest.mark.parametrize(
    ("name", "sent"), [("b\xfccher.test", b"xn--bcher-kva.test"), ("example.test.", b"example.test")]
)
def test_the_server_name_is_encoded(name: str, sent: bytes) -> None:
    names: list[bytes | None] = []
    with listening(tls(ECDSA, names=names)) as port:
        served(look(ask(port, name=name))[0])
    assert names == [sent]


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "a." * 127 + "test", "a\0b", "a\nb", "\ud800"])
def test_what_is_no_server_name_is_told(name: str) -> None:
    with listening(tls(ECDSA)) as port:
        wrong, good = look(ask(port, name=name), ask(port))
    assert (wrong.fault, good.fault) == (HandshakeFault.NAME, None)
    assert wrong.detail.isprintable()


@pytest.mark.parametrize("address", ["", "localhost", "127.0.0.1 "])
def test_only_an_address_is_connected_to(address: str) -> None:
    with listening(tls(ECDSA)) as port:
        (seen,) = look(ask(port, address=address))
    assert seen.fault is HandshakeFault.NAME


@pytest.mark.parametrize("version", TlsVersion)
def test_no_session_is_resumed(version: TlsVersion) -> None:
    # A resumed session shows no staple, and under TLS 1.2 no certificates either.
    with listening(tls(ECDSA, staple=STAPLE)) as port:
        seen = [one for _ in range(3) for one in look(ask(port, version), ask(port, version))]
    assert [(one.staple, len(one.chain)) for one in seen] == [(STAPLE, 2)] * 6


@pytest.mark.parametrize("concurrency", [64, 4])
def test_hostile_neighbours_neither_slow_nor_stain_the_good(concurrency: int) -> None:
    limits = Limits(connect=1, handshake=1, concurrency=concurrency)
    with ExitStack() as stack:
        stapled, bare, *hostile = (
            stack.enter_context(listening(talk))
            for talk in (tls(ECDSA, staple=STAPLE), tls(RSA), silent, trickling, plain_http, closing)
        )
        ports = [hostile[0], stapled, hostile[1], bare, hostile[2], stapled, hostile[3], bare]
        begun = monotonic()
        seen = look(*(ask(port) for port in ports), limits=limits)
        spent = monotonic() - begun
    assert [one.ask.endpoint.port for one in seen] == ports
    good = seen[1::2]
    assert [served(one) for one in good] == [ECDSA.certificate, RSA.certificate] * 2
    assert [one.staple for one in good] == [STAPLE, None] * 2
    assert max(one.seconds for one in good) < 0.8
    kinds = [HandshakeFault.STALLED, HandshakeFault.STALLED, HandshakeFault.NOT_TLS, HandshakeFault.RESET]
    assert [one.fault for one in seen[::2]] == kinds
    assert spent < 2.5


def test_the_owners_are_asked_once_while_the_connections_are_open() -> None:
    asked: list[Sequence[SocketPair]] = []
    closed = threading.Event()

    def owners(pairs: Sequence[SocketPair]) -> Sequence[int | None]:
        asked.append(pairs)
        assert not closed.is_set()
        return [100 + number if number else None for number, _ in enumerate(pairs)]

    serve = tls(ECDSA)

    def talk(peer: socket.socket, over: threading.Event) -> None:
        serve(peer, over)
        closed.set()

    with listening(talk) as port, listening(closing) as bad:
        seen = observe([ask(port), ask(bad), ask(port)], LIMITS, now=lambda: NOW, owners=owners)
        assert closed.wait(5)
    assert len(asked) == 1
    assert [there for _, there in asked[0]] == [("127.0.0.1", port)] * 2
    assert [one.worker for one in seen] == [None, None, 101]


def test_nothing_to_ask() -> None:
    assert look() == []


def test_addresses_of_literals_and_of_names() -> None:
    assert addresses("127.0.0.1", 1) == ("127.0.0.1",)
    assert addresses("::1", 1) == ("::1",)
    assert "127.0.0.1" in addresses("localhost", 5)
    assert addresses("a..b", 5) == ()


def test_results_come_while_others_are_waited_for() -> None:
    with listening(silent) as bad, listening(tls(ECDSA, staple=STAPLE)) as port:
        results = observe_each([ask(bad), ask(port)], Limits(5, 5), now=lambda: NOW)
        begun = monotonic()
        index, seen = next(results)
        assert (index, seen.staple) == (1, STAPLE)
        assert monotonic() - begun < 2
        results.close()


def test_no_more_is_taken_than_can_run() -> None:
    taken: list[int] = []

    def endless(port: int) -> Iterator[Ask]:
        for number in count():
            taken.append(number)
            yield ask(port)

    with listening(tls(ECDSA)) as port:
        results = observe_each(endless(port), Limits(5, 5, concurrency=8), now=lambda: NOW)
        seen = [next(results) for _ in range(40)]
        results.close()
    assert len({index for index, _ in seen}) == 40
    assert len(taken) <= 40 + 8


def test_the_time_for_all_ends_what_runs_and_what_waits() -> None:
    limits = Limits(5, 5, total=0.3, concurrency=2)
    with listening(silent) as port:
        begun = monotonic()
        seen = look(*[ask(port)] * 20, limits=limits)
        spent = monotonic() - begun
    assert {one.fault for one in seen} == {HandshakeFault.STALLED}
    assert {one.detail for one in seen} == {
        "the handshake did not end before the time for all was over",
        "not begun: the time for all was over",
    }
    assert 0.3 <= spent < 1.5


def test_silent_peers_give_their_places_to_others() -> None:
    # More of them than may run at once: each keeps its socket, none keeps the good ones waiting.
    hostile, good, limits = 40, 60, Limits(20, 20, concurrency=32)
    with listening(silent) as bad, listening(tls(ECDSA, staple=STAPLE)) as port:
        asks = [ask(bad)] * hostile + [ask(port)] * good
        results = observe_each(asks, limits, now=lambda: NOW)
        begun = monotonic()
        seen = dict(next(results) for _ in range(good))
        spent = monotonic() - begun
        results.close()
    assert sorted(seen) == [*range(hostile, hostile + good)]
    assert {one.staple for one in seen.values()} == {STAPLE}
    assert spent < 5


def test_a_handshake_on_an_open_line_is_the_one_of_its_worker() -> None:
    with listening(tls(ECDSA, staple=STAPLE)) as port:
        endpoint = ask(port).endpoint
        first, second = dial(endpoint, 2, 2)
        known = replace(second, worker=4711)
        (plain, called) = observe([ask(port), ask(port)], LIMITS, now=lambda: NOW, lines={1: known})
        first.hang_up()
    assert (plain.staple, plain.worker) == (STAPLE, None)
    assert (called.staple, called.worker) == (STAPLE, 4711)
    assert second.socket.fileno() == -1


def test_dialling_leaves_out_what_does_not_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        endpoint = ask(gone.getsockname()[1]).endpoint
        lines = dial(endpoint, 3, 2)
        assert [line.pair[1] for line in lines] == [gone.getsockname()] * 3
        for line in lines:
            line.hang_up()
    assert dial(endpoint, 3, 2) == ()
    assert dial(replace(endpoint, address="localhost"), 3, 2) == ()


@pytest.mark.parametrize("port", [65536, -1])
def test_a_port_that_is_none_is_told(port: int) -> None:
    (seen,) = look(ask(port))
    assert seen.fault is HandshakeFault.BLOCKED
    assert seen.detail.isprintable()


def test_many_names_are_resolved_at_once() -> None:
    found = addresses_of(["127.0.0.1", "localhost", "a..b", "::1"], 5)
    assert found["127.0.0.1"] == ("127.0.0.1",)
    assert "127.0.0.1" in found["localhost"]
    assert (found["a..b"], found["::1"]) == ((), ("::1",))


def test_an_address_of_this_host() -> None:
    assert (is_local("127.0.0.1"), is_local("::1"), is_local("127.9.9.9")) == (True, True, True)
    assert (is_local("192.0.2.1"), is_local("2001:db8::1"), is_local("nonsense")) == (False, False, False)
