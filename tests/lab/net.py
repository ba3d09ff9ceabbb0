"""Addresses and ports of one laboratory: its own /24 of loopback, so that several can run side by side."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from lab.process import LabError


@dataclass(frozen=True, slots=True)
class Net:
    """127.77.NUMBER.x and a block of ports below the ephemeral range that only this laboratory uses."""

    number: int

    @property
    def acme(self) -> str:
        return f"127.77.{self.number}.1"

    @property
    def responder(self) -> str:
        return f"127.77.{self.number}.8"

    @property
    def web(self) -> str:
        return f"127.77.{self.number}.10"

    @property
    def dns(self) -> str:
        return f"127.77.{self.number}.53"

    def port(self, offset: int) -> int:
        return 20000 + self.number * 16 + offset

    @property
    def acme_port(self) -> int:
        return self.port(0)

    @property
    def management_port(self) -> int:
        return self.port(1)

    @property
    def responder_port(self) -> int:
        return self.port(2)

    @property
    def http_port(self) -> int:
        return self.port(3)

    @property
    def https_port(self) -> int:
        return self.port(4)


@contextlib.contextmanager
def claimed() -> Iterator[Net]:
    """A Net that no other laboratory here has; the kernel gives it back when we end, however we end."""
    first = os.getpid() % 200
    for step in range(200):
        net = Net(1 + (first + step) % 200)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as claim:
            try:
                claim.bind(f"\0stapleguard-lab-{net.number}")
            except OSError:
                continue
            if _is_free(net):
                yield net
                return
    raise LabError("no free block of 127.77.0.0/16: is something else listening on the wildcard address?")


def _is_free(net: Net) -> bool:
    asked = [(net.dns, 53)] + [(net.web, net.port(offset)) for offset in range(16)]
    return all(_can_bind(address, port) for address, port in asked)


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError:
            return False
    return True


def accepts(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0
