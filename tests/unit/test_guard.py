"""The guard of conftest.py itself: without it a broken address rule would dial out while it is tested."""

from __future__ import annotations

import socket

import pytest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "::ffff:192.0.2.1", "2001:db8::1"])
def test_nobody_but_loopback_is_reached(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_STREAM) as one,
        pytest.raises(PermissionError, match="not loopback"),
    ):
        one.connect((address, 9))
    with (
        socket.socket(family, socket.SOCK_DGRAM) as one,
        pytest.raises(PermissionError, match="not loopback"),
    ):
        one.sendto(b"", (address, 9))


def test_loopback_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as one:
        one.connect(listener.getsockname())
