"""DER taken apart with `asn1crypto`, for what `cryptography` has read but does not show."""

from __future__ import annotations

from typing import NamedTuple

from asn1crypto import parser


class Element(NamedTuple):
    """One element, its fields in the order in which `asn1crypto.parser.parse` returns them."""

    class_: int
    method: int
    tag: int
    header: bytes
    contents: bytes
    trailer: bytes  # only of the indefinite form, which is not DER

    @property
    def encoded(self) -> bytes:
        """The whole element, as it stood in the input."""
        return self.header + self.contents


def elements(contents: bytes) -> list[Element]:
    """Split the contents of one constructed element (definite lengths) into whole elements."""
    found = []
    while contents:
        element = Element(*parser.parse(contents))
        found.append(element)
        contents = contents[len(element.header) + len(element.contents) :]
    return found
