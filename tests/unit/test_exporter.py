"""The exporter: what it answers, what it refuses, and that no peer can hold it up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from looked import good, result
from prometheus_client.parser import text_string_to_metric_families
from stapleguard.config import Module
from stapleguard.diagnosis import Result
from stapleguard.exporter import MAX_CONNECTIONS, MAX_HEAD, MAX_PROBES, Exporter, Server, budget, place_for
from stapleguard.host import SystemClock
from stapleguard.inventory import Place
from stapleguard.model import KeyType, UsageError

pytestmark = pytest.mark.unit


@dataclass
class Looked:
    """A probe that answers at once and keeps what it was asked."""

    asked: list[tuple[Place, float]] = field(default_factory=list)
    wait: Callable[[], object] = lambda: None

    def __call__(self, place: Place, seconds: float) -> Result:
        self.asked.append((place, seconds))
        self.wait()
        return result(good())


@pytest.fixture
def looked() -> Looked:
    return Looked()


@pytest.fixture
def made(looked: Looked) -> Exporter:
    slow = Module("slow", server_name="www.test", timeout=60)
    return Exporter({"default": (Module("default"), looked), "slow": (slow, looked)}, SystemClock())


def own(made: Exporter) -> dict[str, float]:
    page = made.answer("/metrics", None).body.decode()
    return {
        one.name + "".join(f" {value}" for _, value in sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(page)
        for one in family.samples
    }


def test_a_target_is_looked_at_and_counted(made: Exporter, looked: Looked) -> None:
    answer = made.answer("/probe?target=a.test:8443", None)
    assert (answer.status, looked.asked) == (200, [(Place("a.test", 8443), 10.0)])
    page = answer.body.decode()
    assert 'stapleguard_probe_success{address="192.0.2.1"' in page
    assert "\nstapleguard_probe_duration_seconds " in page
    assert own(made)["stapleguard_exporter_probes_total default verified"] == 1
    assert own(made)["stapleguard_exporter_probes_in_flight"] == 0


def test_the_module_says_how(made: Exporter, looked: Looked) -> None:
    assert made.answer("/probe?target=a.test&module=slow", "120").status == 200
    assert looked.asked == [(Place("a.test", 443, "www.test"), 60.0)]
    mail = Module("mail", starttls="smtp", key_types=(KeyType.RSA,))
    assert place_for("mx.test", mail) == Place("mx.test", 25, starttls="smtp", key_types=(KeyType.RSA,))
    assert place_for("imap://mx.test", mail).port == 143


@pytest.mark.parametrize(
    ("timeout", "scrape", "seconds"),
    [(10, None, 10), (10, "5", 4.5), (10, "60", 10), (10, "0.4", 0.2), (3, "3.5", 3)],
)
def test_it_answers_before_prometheus_is_gone(timeout: float, scrape: str | None, seconds: float) -> None:
    assert budget(timeout, scrape) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("url", "scrape", "says"),
    [
        ("/probe", None, b"one target is asked for"),
        ("/probe?target=", None, b"not an endpoint"),
        ("/probe?target=a:1&target=b:1", None, b"one target is asked for"),
        ("/probe?target=" + "a" * 400, None, b"one target is asked for"),
        ("/probe?target=a%0ab:1", None, b"not an endpoint"),
        ("/probe?target=a:1&module=none", None, b"no such module: none"),
        ("/probe?target=a:1&module=%1b[31m", None, b"no such module: \\x1b[31m"),
        ("/probe?target=gopher://a:1", None, b"unknown scheme"),
        ("/probe?" + "&".join(f"a{number}=1" for number in range(99)), None, b"cannot be read"),
        ("/probe?target", None, b"cannot be read"),
        ("/probe?target=a:1", "nan", b"no number of seconds"),
        ("/probe?target=a:1", "-1", b"no number of seconds"),
        ("/probe?target=a:1", "soon", b"no number of seconds"),
    ],
)
def test_a_bad_request_is_refused_and_nothing_is_looked_at(
    made: Exporter, looked: Looked, url: str, scrape: str | None, says: bytes
) -> None:
    answer = made.answer(url, scrape)
    assert (answer.status, says in answer.body, looked.asked) == (400, True, [])
    assert own(made)["stapleguard_exporter_refused_requests_total bad-request"] == 1


def test_other_paths(made: Exporter) -> None:
    assert b"/probe?target=HOST:PORT&module=slow" in made.answer("/", None).body
    assert made.answer("/../etc/passwd", None).status == 404


def test_so_many_looks_at_once_and_no_more(made: Exporter, looked: Looked) -> None:
    here, over = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        here.release()
        over.wait(10)

    looked.wait = wait
    threads = [
        threading.Thread(target=made.answer, args=("/probe?target=a.test", None)) for _ in range(MAX_PROBES)
    ]
    for one in threads:
        one.start()
    for _ in threads:
        assert here.acquire(timeout=10)
    assert made.answer("/probe?target=a.test", None).status == 503
    assert own(made)["stapleguard_exporter_probes_in_flight"] == MAX_PROBES
    over.set()
    for one in threads:
        one.join()
    assert made.answer("/probe?target=a.test", None).status == 200


# --- the server ------------------------------------------------------------------------------------------


@contextmanager
def serving(made: Exporter, host: str = "127.0.0.1") -> Iterator[Server]:
    with Server(made, host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def talk(server: Server, data: bytes, *, close: bool = False) -> bytes:
    with socket.create_connection(server.server_address[:2], 10) as peer:
        peer.sendall(data)
        if close:
            peer.shutdown(socket.SHUT_WR)
        got = b""
        while piece := peer.recv(65536):
            got += piece
        return got


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_speaks_http(made: Exporter, host: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with serving(made, host) as server:
        got = talk(server, b"GET /probe?target=a.test HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"stapleguard_probe_success" in body
        assert talk(server, b"POST /probe HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 501 ")
        assert talk(server, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n").startswith(b"HTTP/1.1 431 ")


def test_the_header_of_prometheus_is_honoured(made: Exporter, looked: Looked) -> None:
    with serving(made) as server:
        header = b"X-Prometheus-Scrape-Timeout-Seconds: 2\r\n"
        talk(server, b"GET /probe?target=a.test HTTP/1.1\r\n" + header + b"\r\n")
    assert looked.asked == [(Place("a.test", 443), 1.5)]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nx: " + b"a" * (MAX_HEAD - 19), b"GET / HT", b"", b"\0" * MAX_HEAD]
)
def test_a_request_without_an_end_is_refused(made: Exporter, data: bytes) -> None:
    with serving(made) as server:
        assert talk(server, data, close=True).startswith(b"HTTP/1.1 400 ")


def test_a_peer_that_stops_in_the_middle_is_cut_off(made: Exporter) -> None:
    with serving(made) as server:
        server.head_seconds = 0.1
        assert talk(server, b"GET / HT").startswith(b"HTTP/1.1 400 ")


def test_silent_peers_fill_no_more_than_their_share(made: Exporter) -> None:
    with serving(made) as server:
        peers = [socket.create_connection(server.server_address[:2], 10) for _ in range(MAX_CONNECTIONS)]
        try:
            assert talk(server, b"") == b""  # closed at once, without a word
            assert own(made)["stapleguard_exporter_refused_requests_total busy"] >= 1
        finally:
            for one in peers:
                one.close()
        assert server.connections.acquire(timeout=10)  # each comes back when its peer has gone
        server.connections.release()
        server.drain(10)
        assert not server.connections.acquire(blocking=False)


def test_draining_waits_for_what_is_being_answered_but_not_for_ever(made: Exporter, looked: Looked) -> None:
    here, over = threading.Event(), threading.Event()

    def wait() -> None:
        here.set()
        over.wait(10)

    looked.wait = wait
    with serving(made) as server, socket.create_connection(server.server_address[:2], 10) as peer:
        peer.sendall(b"GET /probe?target=a.test HTTP/1.1\r\n\r\n")
        assert here.wait(10)
        server.drain(0.05)
        over.set()
        assert peer.recv(12) == b"HTTP/1.1 200"


def test_a_target_of_another_kind_is_no_place() -> None:
    with pytest.raises(UsageError):
        place_for("a.test/../..", Module("default"))
