"""journald's native protocol: structured fields, lists, text of many lines and of any size."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"

_FIELD_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_SEND_SECONDS: Final = 2.0


class Delivery(Enum):
    """What became of an entry."""

    SENT = "sent"
    NO_SOCKET = "no-socket"
    """No journald here: say it elsewhere."""
    FAILED = "failed"
    """There is a socket, but it did not take the entry in time."""


def journal_send(fields: Mapping[str, str | bytes | Sequence[str]], path: str = SOCKET) -> Delivery:
    """Send one entry of journal fields; a sequence gives the field several values.

    Names are those that libsystemd accepts: capitals, digits and underscores, a capital first, at
    most 64 characters; anything else is a ValueError. An entry that is too large for a datagram goes
    by a sealed memory file (systemd: "Native Journal Protocol").
    """
    entry = b"".join(_encode(fields))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_SEND_SECONDS)
            try:
                channel.sendto(entry, path)
            except OSError as error:
                if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                    raise
                _send_by_file(channel, entry, path)
    except FileNotFoundError:
        return Delivery.NO_SOCKET
    except OSError:
        return Delivery.FAILED
    return Delivery.SENT


def _encode(fields: Mapping[str, str | bytes | Sequence[str]]) -> Iterator[bytes]:
    for name, value in fields.items():
        if not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"not a journal field name: {name!r}")
        for item in (value,) if isinstance(value, str | bytes) else value:
            data = item if isinstance(item, bytes) else item.encode("utf-8", "surrogateescape")
            if b"\n" in data:
                yield b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
            else:
                yield b"%s=%s\n" % (name.encode(), data)


def _send_by_file(channel: socket.socket, entry: bytes, path: str) -> None:
    memory = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(memory, "wb") as file:
        file.write(entry)
        file.flush()
        # journald takes only files that nobody can change any more.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        rights = array.array("i", [file.fileno()])
        channel.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, path)
