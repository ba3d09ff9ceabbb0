"""The dialogues that lead to TLS on a connection that begins without it; no I/O, bytes in and bytes out.

Each dialogue is a generator: it yields what to send (b'': nothing yet), is sent what came, and returns
when TLS may begin. It raises NoStartTls when the peer will not have it, or sends what it should not.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeAlias, assert_never

from asn1crypto import parser

from stapleguard.model import StartTls, escape

Dialogue: TypeAlias = Generator[bytes, bytes, None]

MAX_DIALOGUE: Final = 8192
"""Bytes that a peer may say before TLS begins."""

_EHLO: Final = b"EHLO stapleguard.invalid\r\n"
# LDAPMessage { messageID 1, extendedReq { requestName 1.3.6.1.4.1.1466.20037 } }
_LDAP_REQUEST: Final = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + b"1.3.6.1.4.1.1466.20037"
_LDAP_EXTENDED_RESPONSE: Final = 24
_ENUMERATED_SUCCESS: Final = b"\x0a\x01\x00"
_POSTGRES_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class NoStartTls(Exception):
    """TLS does not begin here; the text says why."""


def dialogue(protocol: StartTls) -> Dialogue:
    """Return the dialogue of a protocol, to be started with `next`."""
    match protocol:
        case StartTls.SMTP:
            return _smtp()
        case StartTls.IMAP:
            return _imap()
        case StartTls.POP3:
            return _pop3()
        case StartTls.LDAP:
            return _ldap()
        case StartTls.POSTGRES:
            return _postgres()
        case _ as never:
            assert_never(never)


class _Heard:
    """What came and was not understood yet."""

    def __init__(self) -> None:
        self.data = b""

    def more(self, send: bytes) -> Generator[bytes, bytes, None]:
        self.data += yield send
        if len(self.data) > MAX_DIALOGUE:
            raise NoStartTls(f"{len(self.data)} bytes came and TLS did not begin")

    def line(self, send: bytes = b"") -> Generator[bytes, bytes, str]:
        while b"\n" not in self.data:
            yield from self.more(send)
            send = b""
        line, _, self.data = self.data.partition(b"\n")
        return line.decode("ascii", "replace").rstrip("\r")

    def nothing_more(self) -> None:
        # Whatever follows the go-ahead in clear would be taken for part of the protected session.
        if self.data:
            raise NoStartTls("more came after the go-ahead, before TLS")


def _refused(said: str) -> NoStartTls:
    return NoStartTls(f"the server says: {escape(said, 120) or 'nothing'}")


def _smtp() -> Dialogue:
    heard = _Heard()
    for send, code in ((b"", "220"), (_EHLO, "250"), (b"STARTTLS\r\n", "220")):
        line = yield from heard.line(send)
        while line[3:4] == "-":  # RFC 5321 section 4.2: all lines but the last have a hyphen there
            line = yield from heard.line()
        if line[:3] != code:
            raise _refused(line)
    heard.nothing_more()


def _imap() -> Dialogue:
    heard = _Heard()
    greeting = yield from heard.line()
    if not greeting.upper().startswith("* OK"):
        raise _refused(greeting)
    line = yield from heard.line(b"s1 STARTTLS\r\n")
    while line.startswith("* "):
        line = yield from heard.line()
    if not line.upper().startswith("S1 OK"):
        raise _refused(line)
    heard.nothing_more()


def _pop3() -> Dialogue:
    heard = _Heard()
    for send in (b"", b"STLS\r\n"):
        line = yield from heard.line(send)
        if not line.upper().startswith("+OK"):
            raise _refused(line)
    heard.nothing_more()


def _ldap() -> Dialogue:
    heard = _Heard()
    yield from heard.more(_LDAP_REQUEST)
    while True:
        try:
            *_, contents, _ = parser.parse(heard.data)
            break
        except ValueError:  # not whole yet; what never becomes whole ends by its size or the time
            yield from heard.more(b"")
    try:
        _, _, _, _, number, _ = parser.parse(contents)
        _, _, tag, _, result, _ = parser.parse(contents[parser.peek(contents) :])
    except ValueError:
        raise NoStartTls("what answers is not LDAP") from None
    if tag != _LDAP_EXTENDED_RESPONSE or number != b"\x01" or not result.startswith(_ENUMERATED_SUCCESS):
        raise NoStartTls("the server refuses the StartTLS operation")
    heard.data = heard.data[parser.peek(heard.data) :]
    heard.nothing_more()


def _postgres() -> Dialogue:
    heard = _Heard()
    yield from heard.more(_POSTGRES_REQUEST)
    if heard.data[:1] != b"S":
        raise NoStartTls("the server was built or configured without TLS")
    heard.data = heard.data[1:]
    heard.nothing_more()
