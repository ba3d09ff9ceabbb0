"""Which groups our handshakes offer, read from a ClientHello of ours, so that the floor gets the same."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from bench import ours

_SUPPORTED_GROUPS = 10
_KEY_SHARE = 51
# RFC 8446 section 4.2.7 and the registry of IANA, in OpenSSL's words.
_NAMES = {
    0x0017: "P-256",
    0x0018: "P-384",
    0x0019: "P-521",
    0x001D: "X25519",
    0x001E: "X448",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0029: "curveSM2",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
    0x11EE: "curveSM2MLKEM768",
}


def offered_groups(anchors: Path) -> str:
    """Let our prober speak to a listener that only reads; what it offered, as OpenSSL would be told."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        listener = threading.Thread(target=_hear, args=(server, heard), daemon=True)
        listener.start()
        where = f"127.0.0.1:{server.getsockname()[1]}"
        ours.Ours(anchors, ours.endpoints_of([where], "www.bench.test")).verify()
        listener.join()
    extensions = _extensions(heard[0])
    listed = extensions[_SUPPORTED_GROUPS][2:]
    numbers = [int.from_bytes(listed[at : at + 2]) for at in range(0, len(listed), 2)]
    shared = _shared(extensions[_KEY_SHARE][2:])
    # OpenSSL makes a key for the first group; since 3.5 a star asks for one, and then it is all of them.
    star = "" if shared == numbers[:1] else "*"
    return ":".join(
        (star if number in shared else "") + _NAMES[number] for number in numbers if number in _NAMES
    )


def _shared(shares: bytes) -> list[int]:
    """The groups for which a key was sent along (RFC 8446 section 4.2.8)."""
    found, at = [], 0
    while at < len(shares):
        found.append(int.from_bytes(shares[at : at + 2]))
        at += 4 + int.from_bytes(shares[at + 2 : at + 4])
    return found


def _hear(server: socket.socket, heard: list[bytes]) -> None:
    peer, _ = server.accept()
    with peer:
        peer.settimeout(5)
        stream = peer.makefile("rb")
        header = stream.read(5)
        heard.append(stream.read(int.from_bytes(header[3:5])))


def _extensions(hello: bytes) -> dict[int, bytes]:
    """The extensions of a ClientHello (RFC 8446 section 4.1.2) that came in one record."""
    at = 4 + 2 + 32
    at += 1 + hello[at]  # session id
    at += 2 + int.from_bytes(hello[at : at + 2])  # cipher suites
    at += 1 + hello[at]  # compression methods
    end = at + 2 + int.from_bytes(hello[at : at + 2])
    at += 2
    found: dict[int, bytes] = {}
    while at < end:
        kind, length = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        found[kind] = hello[at + 4 : at + 4 + length]
        at += 4 + length
    return found
