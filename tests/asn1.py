"""DER, element by element, so that any one of them can be wrong."""

from __future__ import annotations

from typing import Final

from asn1crypto import parser
from asn1crypto.core import Enumerated, Integer, ObjectIdentifier

NULL: Final = b"\x05\x00"


def tlv(tag: int, *parts: bytes, class_: int = 0, constructed: int = 0) -> bytes:
    """One element with a minimal definite length."""
    made: bytes = parser.emit(class_, constructed, tag, b"".join(parts))
    return made


def seq(*parts: bytes) -> bytes:
    """SEQUENCE."""
    return tlv(16, *parts, constructed=1)


def explicit(number: int, *parts: bytes) -> bytes:
    """Put a context tag around whole elements."""
    return tlv(number, *parts, class_=2, constructed=1)


def octets(inside: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(4, inside)


def bits(inside: bytes, unused: int = 0) -> bytes:
    """BIT STRING."""
    return tlv(3, bytes([unused]), inside)


def contents(encoded: bytes) -> bytes:
    """Take off the tag and the length of one element."""
    inside: bytes = parser.parse(encoded)[4]
    return inside


def elements(encoded: bytes) -> list[bytes]:
    """Split what is in one constructed element."""
    rest = contents(encoded)
    found = []
    while rest:
        size = parser.peek(rest)
        found.append(rest[:size])
        rest = rest[size:]
    return found


def integer(value: int) -> bytes:
    """INTEGER."""
    made: bytes = Integer(value).dump()
    return made


def enumerated(value: int) -> bytes:
    """Write ENUMERATED; any number."""
    made: bytes = tlv(Enumerated.tag, Integer(value).contents)
    return made


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER."""
    made: bytes = ObjectIdentifier(dotted).dump()
    return made


CRITICAL: Final = tlv(1, b"\xff")
"""What stands in an Extension for critical TRUE."""
