"""Hosts of our own on a network of our own: namespaces on one switch, IPv4 and IPv6, with firewalls.

Each host is a thread that lives in a network namespace: what it is asked to do, its sockets and the
programs it starts, happens there. A process holds the namespace open and ends with our end of its pipe, so
nothing is left behind even when the test run is killed. The addresses are those for benchmarks of networks
(RFC 2544) and unique local ones (RFC 4193); no packet can leave.
"""

from __future__ import annotations

import ctypes
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lab.process import LabError

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class Host:
    """One host; `number` is the last part of its addresses."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ipv4, self.ipv6 = f"198.18.0.{number}", f"fd00:5746::{number}"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self._holder.communicate(timeout=5)
            raise LabError("no network namespace: is this root?")
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        with Path(f"/proc/{self._holder.pid}/ns/net").open("rb") as namespace:
            entered = ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET)
            errno = ctypes.get_errno()
        while (job := self._work.get()) is not None:
            what, future = job
            if entered != 0:
                future.set_exception(LabError(f"setns: {os.strerror(errno)}"))
                continue
            try:
                future.set_result(what())
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
                future.set_exception(error)

    def do(self, what: Callable[[], T]) -> T:
        """Do something on this host and wait for its end."""
        future: Future[T] = Future()
        self._work.put((what, future))
        return future.result(timeout=120)

    def run(self, *argv: str, words: str = "") -> None:
        """Run a command on this host; it must succeed."""
        done = self.do(lambda: subprocess.run(argv, input=words, capture_output=True, text=True, check=False))
        if done.returncode != 0:
            raise LabError(f"{' '.join(argv)}: {done.returncode}\n{done.stderr}")

    @property
    def pid(self) -> int:
        """A process that lives there."""
        return self._holder.pid

    def close(self) -> None:
        """End the host and all of its network."""
        self._work.put(None)
        self._thread.join()
        self._holder.communicate(timeout=5)


class Cluster:
    """A client with a switch, and so many web hosts on it."""

    def __init__(self, hosts: int) -> None:
        self._stack = ExitStack()
        try:
            self.client = self._host(1)
            self.client.run("ip", "link", "add", "br0", "type", "bridge")
            self._address(self.client, "br0")
            self.web = tuple(self._host(10 + number) for number in range(1, hosts + 1))
            for host in self.web:
                port = f"v{host.number}"
                link = ("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0")
                self.client.run(*link, "netns", str(host.pid))
                self.client.run("ip", "link", "set", port, "master", "br0", "up")
                self._address(host, "eth0")
        except BaseException:
            self._stack.close()
            raise

    def _host(self, number: int) -> Host:
        host = Host(number)
        self._stack.callback(host.close)
        return host

    def _address(self, host: Host, device: str) -> None:
        host.run("ip", "link", "set", device, "up")
        host.run("ip", "address", "add", f"{host.ipv4}/24", "dev", device)
        host.run("ip", "-6", "address", "add", f"{host.ipv6}/64", "dev", device, "nodad")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def drop(host: Host, port: int) -> None:
    """Have the firewall of a host drop what it sends to a TCP port."""
    rules = (
        "table inet lab { chain out { type filter hook output priority 0; policy accept;"
        f" tcp dport {port} drop; }}; }}"
    )
    host.run("nft", "-f", "-", words=rules)


def pass_all(host: Host) -> None:
    """Take the firewall away again."""
    host.run("nft", "delete", "table", "inet", "lab")


def with_hosts(hosts: Path, argv: Sequence[str]) -> list[str]:
    """Run a program that sees another /etc/hosts than everybody else."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(hosts), *argv]
