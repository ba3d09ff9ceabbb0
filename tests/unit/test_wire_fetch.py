"""Fetching over real sockets of this host: what a responder may do wrong, and where nobody may be sent."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

import pytest
from stapleguard.finding import Code
from stapleguard.model import UsageError
from stapleguard.wire.fetch import (
    Fetch,
    FetchPolicy,
    Validators,
    _allowed,
    fetch_issuer,
    ocsp_exchange,
)

pytestmark = pytest.mark.unit

HERE = FetchPolicy(timeout=5, allow_addresses=("127.0.0.0/8", "::1/128"))
OCSP = b"Content-Type: application/ocsp-response\r\n"
Handler = Callable[[bytes, socket.socket], None]


def reply(body: bytes = b"DER", status: bytes = b"200 OK", headers: bytes = OCSP) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)


@contextmanager
def serving(*answers: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """Answer the nth connection with the nth bytes and close; None keeps it open without a word."""
    seen: list[bytes] = []
    held: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for answer in answers:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            held.append(peer)
            data = b""
            while b"\r\n\r\n" not in data:
                data += peer.recv(65536)
            if data.startswith(b"POST"):
                head, _, body = data.partition(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < length:
                    body += peer.recv(65536)
                data = head + b"\r\n\r\n" + body
            seen.append(data)
            if answer is not None:
                with suppress(OSError):
                    peer.sendall(answer)
                peer.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in held:
            peer.close()
        thread.join(5)


def codes(fetch: Fetch) -> list[Code]:
    assert (fetch.body is None) == bool(fetch.findings)
    return [found.code for found in fetch.findings]


def test_get_carries_the_request_and_brings_body_address_and_date() -> None:
    answer = reply(b"\x30\x03abc", headers=OCSP + b"Date: Sun, 01 Mar 2026 12:00:00 GMT\r\n")
    with serving(answer) as (url, seen):
        fetch = ocsp_exchange(url + "/ca", b"\xfb\xff?", HERE)
    assert (fetch.body, codes(fetch), fetch.address) == (b"\x30\x03abc", [], "127.0.0.1")
    assert fetch.date == datetime(2026, 3, 1, 12, tzinfo=UTC)
    line = seen[0].split(b"\r\n")[0].decode()
    assert line == "GET /ca/%2B%2F8%2F HTTP/1.1"
    assert base64.b64decode(unquote(line.split()[1][4:])) == b"\xfb\xff?"
    assert b"accept-encoding: identity" in seen[0].lower()


def test_a_name_is_connected_by_address_and_kept_in_the_host_header() -> None:
    with serving(reply()) as (url, seen):
        fetch = ocsp_exchange(url.replace("127.0.0.1", "localhost"), b"r", HERE)
    assert (fetch.body, fetch.address) == (b"DER", "127.0.0.1")
    assert b"Host: localhost:" in seen[0]


def test_a_long_request_is_posted_at_once() -> None:
    with serving(reply()) as (url, seen):
        fetch = ocsp_exchange(url, b"r" * 300, HERE)
    assert fetch.body == b"DER"
    assert seen[0].startswith(b"POST / ")
    assert seen[0].endswith(b"\r\n\r\n" + b"r" * 300)
    assert b"Content-Type: application/ocsp-request" in seen[0]


@pytest.mark.parametrize("first", [reply(status=b"405 No"), reply(headers=b""), reply(b"")])
def test_post_follows_a_get_that_failed(first: bytes) -> None:
    with serving(first, reply()) as (url, seen):
        fetch = ocsp_exchange(url, b"r", HERE)
    assert (fetch.body, codes(fetch)) == (b"DER", [])
    assert [data[:4] for data in seen] == [b"GET ", b"POST"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply(status=b"503 \x1b[2J"), Code.RESPONDER_HTTP_ERROR),
        (reply(headers=b"Content-Type: text/html\r\n"), Code.RESPONDER_NOT_OCSP),
        (reply(headers=OCSP + b"Content-Encoding: gzip\r\n"), Code.RESPONDER_NOT_OCSP),
        (reply(b"x" * 65537), Code.RESPONDER_TOO_LARGE),
        (reply(b"DER")[:-1], Code.NET_RESET),
        (b"", Code.NET_RESET),
        (b"SSH-2.0-x\r\n\r\n", Code.RESPONDER_NOT_OCSP),
    ],
)
def test_each_wrong_answer_has_its_code(answer: bytes, code: Code) -> None:
    with serving(answer) as (url, _):
        fetch = ocsp_exchange(url, b"r" * 300, HERE)
    assert codes(fetch) == [code]
    found = fetch.findings[0]
    assert found.message.isprintable()
    assert found.evidence["address"] == "127.0.0.1"
    assert found.evidence["method"] == "POST"
    assert found.evidence["status"] == (
        503 if code is Code.RESPONDER_HTTP_ERROR else found.evidence["status"]
    )


def test_the_limit_itself_is_not_too_large() -> None:
    with serving(reply(b"x" * 65536)) as (url, _):
        assert len(ocsp_exchange(url, b"r", HERE).body or b"") == 65536


def test_silence_is_slow_and_bounded() -> None:
    with serving(None) as (url, _):
        fetch = ocsp_exchange(url, b"r", FetchPolicy(0.3, HERE.allow_addresses))
    assert codes(fetch) == [Code.RESPONDER_SLOW]
    assert 0.25 < fetch.seconds < 2


def test_a_trickle_does_not_outlive_the_deadline() -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not done.wait(0.05):
                    peer.sendall(b"x")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        fetch = ocsp_exchange(url, b"r", FetchPolicy(0.4, HERE.allow_addresses))
        left = [one for one in threading.enumerate() if one.name == "stapleguard-fetch"]
        for one in left:
            one.join(2)
        abandoned = [one for one in left if one.is_alive()]
        done.set()
        thread.join(5)
    assert codes(fetch) == [Code.RESPONDER_SLOW]
    assert fetch.seconds < 2
    assert abandoned == [], "a peer that trickles keeps no thread of ours"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    fetch = ocsp_exchange(f"http://127.0.0.1:{port}/", b"r", HERE)
    assert codes(fetch) == [Code.NET_REFUSED]
    assert fetch.findings[0].evidence["port"] == port


def test_a_name_that_does_not_exist() -> None:
    # A label of 64 never leaves this host.
    assert codes(ocsp_exchange(f"http://{'a' * 64}.test/", b"r", HERE)) == [Code.DNS_NAME_NOT_FOUND]


def test_one_redirect_is_followed_and_judged_again() -> None:
    def to(place: str) -> bytes:
        return reply(b"", b"302 Found", b"Location: " + place.encode() + b"\r\n")

    with serving(to("/there"), reply()) as (url, seen):
        assert ocsp_exchange(url, b"r", HERE).body == b"DER"
    assert seen[1].startswith(b"GET /there ")
    with serving(to("/a"), to("/b")) as (url, _):
        assert codes(fetch_issuer(url, HERE)) == [Code.RESPONDER_HTTP_ERROR]
    for place in (
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "https://127.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
    ):
        with serving(to(place)) as (url, _):
            assert codes(ocsp_exchange(url, b"r", HERE)) == [Code.RESPONDER_FORBIDDEN_ADDRESS]


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "localhost",
            "0.0.0.0",
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "169.254.169.254",
        ),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "127.1", "2130706433", "0x7f000001", "192.0.2.1"),
        *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]"),
        *("[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::127.0.0.1]", "[fec0::1]", "[2001:db8::1]"),
    ],
)
def test_special_addresses_are_not_asked_without_leave(host: str) -> None:
    for proxy in ("", "http://127.0.0.1:9") if host != "localhost" else ("",):
        fetch = ocsp_exchange(f"http://{host}/", b"r", FetchPolicy(2, proxy=proxy))
        assert codes(fetch) == [Code.RESPONDER_FORBIDDEN_ADDRESS]


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        *((one, False) for one in ("192.0.0.192", "168.63.129.16", "100.100.100.200", "fd00:ec2::254")),
        *((one, False) for one in ("64:ff9b:1::7f00:1", "64:ff9b::a9fe:a9fe", "3fff::1", "2001:0:7f00:1::1")),
        *((one, True) for one in ("8.8.8.8", "168.63.129.17", "2606:4700::1", "64:ff9b::808:808")),
    ],
)
def test_what_is_public(address: str, allowed: bool) -> None:
    # Judged without a connection: a hole here must not make the test reach out of this host.
    assert _allowed(ip_address(address), ()) is allowed
    assert _allowed(ip_address(address), (ip_network("0.0.0.0/0"), ip_network("::/0")))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://127.0.0.1/",
            "ftp://127.0.0.1/",
            "http://u:p@127.0.0.1/",
            "http:///",
            "http://127.0.0.1:0/",
        ),
        *(
            "http://127.0.0.1:99999/",
            "http://127.0.0.1\\@x/",
            "http://127.0.0.1/\r\nX: y",
            "http://[::1/",
            "",
            "/x",
        ),
    ],
)
def test_urls_that_are_not_asked(url: str) -> None:
    fetch = ocsp_exchange(url, b"r" * 300, HERE)
    assert codes(fetch) == [Code.RESPONDER_FORBIDDEN_ADDRESS]
    assert fetch.findings[0].subject.isprintable()


def test_issuer_of_any_content_type_within_its_own_limit() -> None:
    with serving(reply(b"x" * (1 << 20), headers=b""), reply(b"x" * ((1 << 20) + 1))) as (url, seen):
        assert len(fetch_issuer(url + "/i.der?a=b", HERE).body or b"") == 1 << 20
        assert codes(fetch_issuer(url, HERE)) == [Code.RESPONDER_TOO_LARGE]
    assert seen[0].startswith(b"GET /i.der?a=b ")


def test_a_proxy_gets_the_name_and_the_environment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply()) as (url, seen):
        fetch = ocsp_exchange("http://ocsp.ca.test/x", b"r", FetchPolicy(5, proxy=url))
    assert (fetch.body, fetch.address) == (b"DER", None)
    assert seen[0].startswith(b"GET http://ocsp.ca.test:80/x/cg%3D%3D ")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(reply()) as (url, _):
        assert ocsp_exchange(url, b"r", HERE).body == b"DER"


def test_a_policy_that_cannot_be_read() -> None:
    for policy in (FetchPolicy(allow_addresses=("ten",)), FetchPolicy(proxy="socks5://127.0.0.1:1")):
        with pytest.raises(UsageError):
            ocsp_exchange("http://127.0.0.1/", b"r", policy)


def test_validators_come_back_and_make_the_next_get_conditional() -> None:
    date = "Sun, 01 Mar 2026 12:00:00 GMT"
    first = reply(headers=OCSP + f'ETag: "abc"\r\nLast-Modified: {date}\r\n'.encode())
    same = reply(b"", b"304 Not Modified", b"")
    with serving(first, same) as (url, seen):
        fetch = ocsp_exchange(url, b"r", HERE)
        again = ocsp_exchange(url, b"r", HERE, fetch.validators)
    assert fetch.validators == Validators('"abc"', date)
    assert not fetch.unchanged
    assert (again.body, again.findings, again.unchanged) == (None, (), True)
    assert b"if-none-match" not in seen[0].lower()
    assert b'If-None-Match: "abc"\r\n' in seen[1]
    assert f"If-Modified-Since: {date}\r\n".encode() in seen[1]
    assert len(seen) == 2  # and no POST after it


def test_not_modified_is_no_answer_to_who_has_asked_for_no_condition() -> None:
    with serving(*[reply(b"", b"304 Not Modified", b"")] * 2) as (url, _):
        assert codes(ocsp_exchange(url, b"r", HERE)) == [Code.RESPONDER_HTTP_ERROR] * 2


def test_a_validator_that_cannot_be_sent_back_is_dropped() -> None:
    with serving(reply(headers=OCSP + b"ETag: " + b"x" * 300 + b"\r\n")) as (url, _):
        assert ocsp_exchange(url, b"r", HERE).validators == Validators()


def test_an_address_given_stands_for_the_name_and_is_judged_all_the_same() -> None:
    with serving(reply()) as (url, seen):
        port = url.rstrip("/").rpartition(":")[2]
        there = replace(HERE, addresses=("127.0.0.1",))
        fetch = ocsp_exchange(f"http://nowhere.invalid:{port}/", b"r", there)
        assert (fetch.body, fetch.address, codes(fetch)) == (b"DER", "127.0.0.1", [])
        assert f"Host: nowhere.invalid:{port}".encode() in seen[0]
    special = ocsp_exchange(f"http://nowhere.invalid:{port}/", b"r", FetchPolicy(5, addresses=("127.0.0.1",)))
    assert codes(special) == [Code.RESPONDER_FORBIDDEN_ADDRESS]
    with pytest.raises(UsageError, match="not an address"):
        ocsp_exchange("http://a.test/", b"r", FetchPolicy(addresses=("a.test",)))


def test_another_host_may_be_asked_for() -> None:
    with serving(reply()) as (url, seen):
        assert ocsp_exchange(url, b"r", replace(HERE, host="ocsp.ca.test")).body == b"DER"
    assert b"Host: ocsp.ca.test\r\n" in seen[0]
