"""Control sockets: one command in, the whole reply out, as HAProxy's runtime interface has it."""

from __future__ import annotations

import socket
import time
from typing import Final

_REPLY_LIMIT: Final = 1 << 20


def control(path: str, command: bytes, timeout: float) -> str | None:
    """Send a command to the UNIX socket at `path` and read until the peer closes.

    None when nobody answers there in `timeout` seconds, all in all. The reply is cut at one MiB and read
    as UTF-8 with replacement characters.
    """
    deadline = time.monotonic() + timeout
    reply = b""
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(timeout)
            peer.connect(path)
            peer.sendall(command)
            peer.shutdown(socket.SHUT_WR)
            while len(reply) < _REPLY_LIMIT:
                peer.settimeout(max(deadline - time.monotonic(), 0.001))
                chunk = peer.recv(1 << 16)
                if not chunk:
                    break
                reply += chunk
    except OSError:
        return None
    return reply.decode("utf-8", "replace")
