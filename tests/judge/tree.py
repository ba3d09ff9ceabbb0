"""A response as a tree of ASN.1, to be bent in one place and signed anew.

A flipped octet mostly breaks a length or the signature and tests only the parser. Here whole elements
are dropped, doubled, exchanged, retagged or rewritten, lengths fit again, and whoever signed signs what
has become of it, so that the change reaches the rules behind the signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from asn1 import bits, tlv
from asn1crypto import parser
from pki import Algorithm, PrivateKey, Signer, usual

_OCTET_STRING, _SEQUENCE, _TIME, _INTEGER, _OID = 4, 16, 24, 2, 6
_DEEP: Final = 40


@dataclass(slots=True)
class Node:
    """One element: with children, or with contents. An OCTET STRING that holds a SEQUENCE has a child."""

    class_: int
    constructed: int
    tag: int
    contents: bytes
    children: list[Node] | None

    def der(self) -> bytes:
        """Encode it, with lengths that fit."""
        parts = (self.contents,) if self.children is None else (child.der() for child in self.children)
        return tlv(self.tag, *parts, class_=self.class_, constructed=self.constructed)

    def walk(self) -> Iterator[Node]:
        """Give this node and all below it."""
        yield self
        for child in self.children or ():
            yield from child.walk()


def read(der: bytes) -> Node | None:
    """Read one element and all in it; None when it is none, or something stands behind it."""
    found = _elements(der, 0)
    return found[0] if found is not None and len(found) == 1 else None


def _elements(data: bytes, depth: int) -> list[Node] | None:
    found = []
    while data:
        try:
            class_, constructed, tag, header, contents, trailer = parser.parse(data)
        except ValueError:
            return None
        data = data[len(header) + len(contents) + len(trailer) :]
        opened = bool(constructed) or (class_ == 0 and tag == _OCTET_STRING and contents[:1] == b"\x30")
        children = _elements(contents, depth + 1) if opened and depth < _DEEP else None
        found.append(Node(class_, constructed, tag, contents, children))
    return found


def bend(random: Random, root: Node, times: int = 1) -> None:
    """Change the tree in a few places."""
    for _ in range(times):
        node = random.choice(list(root.walk()))
        if node.children is not None and (node.children or random.random() < 0.5):
            _bend_children(random, root, node.children)
        else:
            _bend_contents(random, node)
        if random.random() < 0.1:
            node.class_, node.tag = random.choice([0, 2]), random.choice([0, 1, 2, 3, 4, 5, 6, 16, 17, 24])


def _bend_children(random: Random, root: Node, children: list[Node]) -> None:
    at = random.randrange(len(children) + 1)
    match random.choice(["drop", "double", "exchange", "graft", "reverse", "null"]):
        case "drop" if children:
            del children[at - 1]
        case "double" if children:
            children.insert(at, children[at - 1])
        case "exchange" if len(children) > 1:
            children[at - 1], children[at - 2] = children[at - 2], children[at - 1]
        case "graft":
            # From its bytes: a node in its own children would never end.
            copied = read(random.choice(list(root.walk())).der())
            children.insert(at, copied or Node(0, 0, 5, b"", None))
        case "reverse":
            children.reverse()
        case _:
            children.insert(at, Node(0, 0, 5, b"", None))


def _bend_contents(random: Random, node: Node) -> None:
    contents = bytearray(node.contents)
    if node.tag == _TIME and len(contents) == 15 and random.random() < 0.7:
        # A digit of the minute or second, of the day, of the year; or another form.
        at = random.choice([13, 12, 11, 9, 7, 5, 3])
        contents[at] = random.choice(b"0123456789")
    elif node.tag == _INTEGER and contents and random.random() < 0.5:
        contents[0] ^= 0x80
    elif node.tag == _OID and contents and random.random() < 0.7:
        contents[-1] = (contents[-1] + random.choice([1, 2, 255])) & 0x7F
    else:
        match random.choice(["flip", "flip", "append", "cut", "empty", "fill"]):
            case "flip" if contents:
                contents[random.randrange(len(contents))] ^= 1 << random.randrange(8)
            case "append":
                contents += random.randbytes(random.choice([1, 1, 8]))
            case "cut":
                del contents[random.randrange(len(contents) + 1) :]
            case "fill":
                contents[:] = bytes([random.choice([0, 1, 255])]) * len(contents)
            case _:
                contents.clear()
    node.contents, node.children = bytes(contents), None


def sign_anew(root: Node, key: PrivateKey, algorithm: Algorithm, issuer: Signer | None) -> bytes:
    """Encode the tree with a signature that fits it, where there is still a place for one.

    With `issuer`, the certificates in it are signed anew, too: whatever they say, that authority says it.
    """
    basic = _basic(root)
    if basic is not None:
        if issuer is not None:
            for certificate in _certificates(basic):
                _sign(certificate, issuer.key, usual(issuer.key))
        _sign(basic, key, algorithm)
    return root.der()


def _sign(signed: list[Node], key: PrivateKey, algorithm: Algorithm) -> None:
    """Replace the third of what is to be signed, the algorithm and the signature."""
    signature = read(bits(algorithm.sign(key, signed[0].der())))
    if signature is not None and len(signed) > 2:
        signed[2] = signature


def _basic(root: Node) -> list[Node] | None:
    """Find the fields of the BasicOCSPResponse, if they are where they should be."""
    node: Node | None = root
    for at in (1, 0, 1, 0):  # responseBytes, its SEQUENCE, response, what is in the OCTET STRING
        if node is None or node.children is None or len(node.children) <= at:
            return None
        node = node.children[at]
    return node.children if node is not None and node.children and len(node.children) > 2 else None


def _certificates(basic: list[Node]) -> Iterator[list[Node]]:
    for last in basic[3:]:
        for certificates in last.children or ():
            for certificate in certificates.children or ():
                if certificate.children and len(certificate.children) > 2:
                    yield certificate.children
