"""The dialogues before TLS: word for word as bytes, and against servers of this process that speak them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stapleguard.model import Ask, Endpoint, HandshakeFault, Observation, StartTls
from stapleguard.rehearsal.authority import Authority
from stapleguard.wire.handshake import Limits, observe
from stapleguard.wire.starttls import MAX_DIALOGUE, NoStartTls, dialogue
from test_wire_handshake import STAPLE, listening, silent, tls

pytestmark = pytest.mark.unit

NOW = datetime.now(UTC)
SITE = Authority.create(NOW).issue(["mail.test"], NOW)
LDAP_OK = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"

# What each server says, and what it must have been told before: a good end and one that differs in one thing.
GOOD: dict[StartTls, Sequence[tuple[bytes, bytes]]] = {
    StartTls.SMTP: [
        (b"", b"220-mail.test hello\r\n220 ready\r\n"),
        (b"EHLO stapleguard.invalid\r\n", b"250-mail.test\r\n250-STARTTLS\r\n250 SIZE 1\r\n"),
        (b"STARTTLS\r\n", b"220 go ahead\r\n"),
    ],
    StartTls.IMAP: [
        (b"", b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n"),
        (b"s1 STARTTLS\r\n", b"* BYE-THE-WAY untagged\r\ns1 OK begin\r\n"),
    ],
    StartTls.POP3: [(b"", b"+OK ready\r\n"), (b"STLS\r\n", b"+OK begin\r\n")],
    StartTls.LDAP: [
        (b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + b"1.3.6.1.4.1.1466.20037", LDAP_OK),
    ],
    StartTls.POSTGRES: [(b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"S")],
}
REFUSALS: dict[StartTls, Sequence[bytes]] = {
    StartTls.SMTP: [b"454 not now\r\n", b"554 go away\r\n", b"220 go\r\nEHLO x\r\n"],
    StartTls.IMAP: [b"s1 NO\r\n", b"s1 BAD what\r\n", b"s1 OK begin\r\n* OK injected\r\n"],
    StartTls.POP3: [b"-ERR no\r\n", b"+OK\r\n+OK injected\r\n"],
    StartTls.LDAP: [
        LDAP_OK.replace(b"\x0a\x01\x00", b"\x0a\x01\x34"),
        LDAP_OK.replace(b"\x02\x01\x01", b"\x02\x01\x02"),
        LDAP_OK.replace(b"\x78", b"\x61"),
        LDAP_OK + b"\x30",
    ],
    StartTls.POSTGRES: [b"N", b"E", b"SS", b"HTTP/1.1 400\r\n"],
}


def run(protocol: StartTls, replies: Sequence[bytes]) -> list[bytes]:
    """Play the replies, each in one piece; what was sent between them."""
    talk = dialogue(protocol)
    sent = [next(talk)]
    for reply in replies:
        try:
            said = talk.send(reply)
        except StopIteration:
            return sent
        sent.append(said)
    raise AssertionError("it did not end")


@pytest.mark.parametrize("protocol", StartTls)
def test_the_words_are_those_of_the_protocol(protocol: StartTls) -> None:
    said = b"".join(run(protocol, [reply for _, reply in GOOD[protocol]]))
    assert said == b"".join(wanted for wanted, _ in GOOD[protocol])


@pytest.mark.parametrize("protocol", StartTls)
def test_the_pieces_in_which_an_answer_comes_make_no_difference(protocol: StartTls) -> None:
    replies = [bytes([octet]) for _, reply in GOOD[protocol] for octet in reply]
    assert b"".join(run(protocol, replies)) == b"".join(wanted for wanted, _ in GOOD[protocol])


@pytest.mark.parametrize(
    ("protocol", "last"), [(protocol, last) for protocol, several in REFUSALS.items() for last in several]
)
def test_anything_else_is_a_refusal(protocol: StartTls, last: bytes) -> None:
    replies = [reply for _, reply in GOOD[protocol]][:-1]
    with pytest.raises(NoStartTls) as refused:
        run(protocol, [*replies, last])
    assert str(refused.value).isprintable()


@given(st.sampled_from(StartTls), st.lists(st.binary(min_size=1, max_size=2000), max_size=20))
def test_any_bytes_end_or_are_refused_and_never_too_many_are_kept(
    protocol: StartTls, pieces: list[bytes]
) -> None:
    talk = dialogue(protocol)
    next(talk)
    taken = 0
    try:
        for piece in pieces:
            taken += len(piece)
            talk.send(piece)
        assert taken <= MAX_DIALOGUE + 2000 or protocol in (StartTls.SMTP, StartTls.IMAP)
    except (StopIteration, NoStartTls):
        pass


ROOMY = Limits()


def scripted(script: Sequence[tuple[bytes, bytes]]) -> Callable[[socket.socket, threading.Event], None]:
    serve = tls(SITE, staple=STAPLE)

    def talk(peer: socket.socket, over: threading.Event) -> None:
        for wanted, reply in script:
            heard = b""
            while len(heard) < len(wanted):
                heard += peer.recv(4096)
            assert heard == wanted
            peer.sendall(reply)
        serve(peer, over)

    return talk


def look(port: int, protocol: StartTls, limits: Limits = ROOMY) -> Observation:
    endpoint = Endpoint("mail.test", port, "mail.test", "127.0.0.1", protocol)
    (seen,) = observe([Ask(endpoint)], limits, now=lambda: NOW)
    return seen


@pytest.mark.parametrize("protocol", StartTls)
def test_a_staple_is_seen_behind_the_dialogue(protocol: StartTls) -> None:
    with listening(scripted(GOOD[protocol])) as port:
        seen = look(port, protocol)
    assert (seen.fault, seen.staple) == (None, STAPLE), seen.detail


@pytest.mark.parametrize("protocol", StartTls)
def test_a_server_that_will_not_begin_is_told_apart(protocol: StartTls) -> None:
    script = [*GOOD[protocol][:-1], (GOOD[protocol][-1][0], REFUSALS[protocol][0])]
    with listening(scripted(script)) as port:
        seen = look(port, protocol)
    assert seen.fault is HandshakeFault.NO_STARTTLS
    assert seen.detail


@pytest.mark.parametrize("protocol", StartTls)
def test_a_silent_server_costs_its_limit(protocol: StartTls) -> None:
    with listening(silent) as port:
        seen = look(port, protocol, Limits(dialogue=0.2))
    assert (seen.fault, seen.detail) == (
        HandshakeFault.STALLED,
        "the dialogue before TLS did not end within 0.2 s",
    )


def hesitant(held: threading.Event) -> Callable[[socket.socket, threading.Event], None]:
    """It greets once this is set."""
    greets = scripted(GOOD[StartTls.SMTP])

    def talk(peer: socket.socket, over: threading.Event) -> None:
        held.wait(10)
        greets(peer, over)

    return talk


def test_a_server_that_lets_a_stranger_wait_is_waited_for() -> None:
    held = threading.Event()
    short = 0.3
    timer = threading.Timer(3 * short, held.set)
    timer.start()
    with listening(hesitant(held)) as port:
        seen = look(port, StartTls.SMTP, Limits(handshake=short, dialogue=10))
    timer.join()
    assert (seen.fault, seen.staple) == (None, STAPLE), seen.detail
    assert seen.seconds > 2 * short
    # TLS itself has no more time for that.
    with listening(stalled_after_the_dialogue) as port:
        seen = look(port, StartTls.SMTP, Limits(handshake=short, dialogue=10))
    assert (seen.fault, seen.detail) == (
        HandshakeFault.STALLED,
        "the handshake did not end within 0.3 s",
    )


def stalled_after_the_dialogue(peer: socket.socket, over: threading.Event) -> None:
    for wanted, reply in GOOD[StartTls.SMTP]:
        if wanted:
            peer.recv(4096)
        peer.sendall(reply)
    silent(peer, over)
