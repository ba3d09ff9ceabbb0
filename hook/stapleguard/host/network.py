"""Working in the network namespace of another process: what is opened and started there stays there."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

_PROC: Final = Path("/proc")
_CLONE_NEWNET: Final = 0x40000000
_AT_ONCE: Final = 2
_SET_UID_AND_GID: Final = 1 << 7 | 1 << 6
_T = TypeVar("_T")


class Network:
    """A network namespace. Sockets and children that a job makes are in it, wherever they are used later."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool

    @property
    def elsewhere(self) -> bool:
        """Whether it is another one than that of this process."""
        return self._pool is not None

    def do(self, job: Callable[[], _T]) -> _T:
        """Do a job there and return what it returns."""
        return job() if self._pool is None else self._pool.submit(job).result()


@contextmanager
def network_of(pid: int) -> Iterator[Network]:
    """Enter the network namespace of a process: directly where it is ours, else in threads of our own.

    A namespace belongs to a thread, so nothing else of this process moves. Raises OSError where we may not
    (it needs CAP_SYS_ADMIN) or the process is gone.
    """
    theirs = _PROC / str(pid) / "ns" / "net"
    if theirs.readlink() == (_PROC / "self" / "ns" / "net").readlink():
        yield Network(None)
        return
    with ExitStack() as stack:
        descriptor = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        # Threads for our purposes alone, which last as long as this: a child lives no longer than its own.
        entered = ThreadPoolExecutor(_AT_ONCE, initializer=_enter, initargs=(descriptor,))
        pool = stack.enter_context(entered)
        try:
            pool.submit(os.getpid).result()
        except BrokenExecutor:
            raise OSError("another network namespace cannot be entered") from None
        yield Network(pool)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")


def free_ports(count: int) -> tuple[int, ...]:
    """Find TCP ports of 127.0.0.1 that were free a moment ago, each another one."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


def may_change_user() -> bool:
    """Whether a child of ours could become another user: root with the capabilities for it."""
    try:
        lines = (_PROC / "self" / "status").read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return os.geteuid() == 0 and int(effective, 16) & _SET_UID_AND_GID == _SET_UID_AND_GID
