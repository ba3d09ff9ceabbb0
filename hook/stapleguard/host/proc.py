"""What the kernel tells about running processes and their sockets (proc(5), cgroups(7)).

All of it is a look at a moving thing: a process may be gone by the time it is used. Without root
the descriptors of other users' processes stay hidden; then there is an answer less, not an error.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_SYSTEMD: Final = Path("/run/systemd/system")
_LISTEN: Final = "0A"
_STARTSTACK: Final = 25  # counted from the state, which follows the name
_NOT_ACCEPTED: Final = "0"
_DELETED: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class Process:
    """One process: `argv` as it shows it, `command` the same in one line (a title, where it set one).

    `executable` is the path of its program, None when that is not ours to know; `uid` is effective.
    """

    pid: int
    parent: int
    command: str
    executable: str | None
    uid: int
    argv: tuple[str, ...]


def process(pid: int) -> Process | None:
    """Look at one process; None when there is none of that number."""
    try:
        status = _status(pid)
        cmdline = (_PROC / str(pid) / "cmdline").read_bytes()
    except (OSError, KeyError):
        return None
    argv = tuple(part.decode("utf-8", "surrogateescape") for part in cmdline.rstrip(b"\0").split(b"\0"))
    executable = _link(pid, "exe")
    return Process(
        pid,
        int(status["PPid"]),
        " ".join(argv).strip(),
        # An upgraded package: the path leads to the new program already.
        executable.removesuffix(_DELETED) if executable else None,
        int(status["Uid"].split()[1]),
        argv if cmdline else (),
    )


def processes() -> tuple[Process, ...]:
    """Every process that can be seen from here."""
    return tuple(found for pid in _pids() if (found := process(pid)) is not None)


def children(pid: int) -> tuple[Process, ...]:
    """List the direct children of a process."""
    found: list[Process] = []
    for candidate in _pids():
        with suppress(OSError, ValueError, IndexError):
            # proc(5): pid (comm) state ppid ...; comm may hold anything, so what counts is behind its end.
            stat = (_PROC / str(candidate) / "stat").read_bytes().rpartition(b")")[2].split(None, 2)
            if int(stat[1]) == pid and (child := process(candidate)) is not None:
                found.append(child)
    return tuple(found)


def is_fork(pid: int, parent: int) -> bool:
    """Tell whether a process still runs the program image of its parent: forked, and nothing executed since.

    A program that is executed gets a stack at a random place, a fork has its parent's. Where that is not
    ours to know it counts as a fork, and so does a process that is gone.
    """
    mine, theirs = _stack(pid), _stack(parent)
    return mine == theirs or mine == 0 or theirs == 0


def _stack(pid: int) -> int:
    """Read startstack, 0 where it is hidden or the process is gone (proc(5), the 28th field of stat)."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
        return int(text.rpartition(b")")[2].split()[_STARTSTACK])
    except (OSError, ValueError, IndexError):
        return 0


def working_directory(pid: int) -> str | None:
    """Where the relative paths of a process start, None when that is not ours to know."""
    return _link(pid, "cwd")


def denied(pid: int, path: str) -> str:
    """Name the user of a process where its user and groups may not read a file; '' where they may."""
    try:
        status = _status(pid)
        uid, groups = int(status["Uid"].split()[1]), {status["Gid"].split()[1], *status["Groups"].split()}
        real = Path(path).resolve()
        allowed = all(_may(one, uid, groups, 0o1) for one in real.parents) and _may(real, uid, groups, 0o4)
    except (OSError, KeyError):
        return ""
    return "" if uid == 0 or allowed else f"uid {uid}"


def _may(path: Path, uid: int, groups: set[str], wanted: int) -> bool:
    """Whether the mode of a file allows it; lists of access rights are not read."""
    seen = path.stat()
    shift = 6 if seen.st_uid == uid else 3 if str(seen.st_gid) in groups else 0
    return bool(seen.st_mode >> shift & wanted)


def output_of(pid: int) -> str | None:
    """The file that a process's standard error goes to, None when that is no file or not ours to know."""
    path = _link(pid, "fd/2")
    return path if path is not None and Path(path).is_file() else None


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when that is not ours to know."""
    try:
        words = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (word.decode("utf-8", "surrogateescape").partition("=") for word in words if b"=" in word)
    return {name: value for name, _, value in pairs}


def shares_root(pid: int) -> bool:
    """Whether a process sees our root directory, so that its paths are ours.

    False for one in a container; true also where it cannot be seen.
    """
    try:
        theirs = (_PROC / str(pid) / "root").stat()
    except OSError:
        return True
    ours = Path("/").stat()
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def unit_of(pid: int) -> str | None:
    """Name the service of the system manager whose control group holds the process, None without systemd.

    Whether it is the service's main process is another question: a shell in cron.service may have
    started it.
    """
    if not _SYSTEMD.is_dir():
        return None
    try:
        return service_in((_PROC / str(pid) / "cgroup").read_text())
    except OSError:
        return None


def service_in(groups: str) -> str | None:
    """Name the service in the text of /proc/PID/cgroup, of either version of control groups."""
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controllers != "name=systemd":
            continue
        services = [part for part in path.split("/") if part.endswith(".service")]
        # user@UID.service is a manager of its own, which our systemctl does not speak to.
        if services and not services[0].startswith("user@"):
            return services[-1]
    return None


def listeners(port: int) -> frozenset[int]:
    """Find who listens on a TCP port, IPv4 or IPv6, in this network namespace: every holder of the socket."""
    return listeners_among(port, _pids())


def listened(port: int) -> bool:
    """Whether anybody listens on a TCP port in this network namespace, whoever it is."""
    return any(state == _LISTEN and local.endswith(f":{port:04X}") for local, _, state, _ in _sockets())


def listeners_among(port: int, candidates: Sequence[int]) -> frozenset[int]:
    """Tell which of the `candidates` hold a socket that listens on a TCP port; see `listeners`."""
    wanted = f":{port:04X}"
    sockets = {inode for local, _, state, inode in _sockets() if state == _LISTEN and local.endswith(wanted)}
    return frozenset(pid for pid in candidates if sockets and not sockets.isdisjoint(_held(pid)))


def listening(candidates: Sequence[int]) -> tuple[int, ...]:
    """Tell which of the `candidates` hold any socket that listens for TCP connections."""
    sockets = {inode for _, _, state, inode in _sockets() if state == _LISTEN}
    return tuple(pid for pid in candidates if not sockets.isdisjoint(_held(pid)))


def named(programs: frozenset[str]) -> tuple[Process, ...]:
    """List the processes that run one of these programs, by the kernel's short name (15 octets)."""
    found: list[Process] = []
    for pid in _pids():
        with suppress(OSError):
            name = (_PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
            if name in programs and (one := process(pid)) is not None:
                found.append(one)
    return tuple(found)


def owners(
    pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]], candidates: Sequence[int]
) -> list[int | None]:
    """Which process serves each of our own open connections.

    `pairs` are (our address, peer address) of TCP connections that we made to this host, as
    getsockname() and getpeername() give them; the answer has one entry for each: the one of
    `candidates` that holds the accepted socket, None when no candidate does.
    """
    return holders(accepted(pairs), candidates)


def accepted(pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]]) -> list[str | None]:
    """Name the accepted socket (its inode) of each of our own open connections to this host.

    None while nobody has accepted it, and for a connection that ends on another host. The kernel's table
    is read once however many pairs there are.
    """
    wanted = {
        (theirs, ours): index
        for index, (our_end, their_end) in enumerate(pairs)
        for ours, theirs in zip(_spellings(*our_end), _spellings(*their_end), strict=False)
    }
    found: list[str | None] = [None] * len(pairs)
    for local, remote, _, inode in _sockets():
        index = wanted.get((local, remote))
        if index is not None and inode != _NOT_ACCEPTED:
            found[index] = inode
    return found


def holders(sockets: Sequence[str | None], candidates: Sequence[int]) -> list[int | None]:
    """Tell which of the `candidates` holds each socket; None where none of them does."""
    wanted = {inode for inode in sockets if inode is not None}
    holder: dict[str, int] = {}
    for pid in candidates:
        for inode in _held(pid) & wanted:
            holder[inode] = pid
    return [holder.get(inode) if inode is not None else None for inode in sockets]


def _spellings(address: str, port: int) -> tuple[str, ...]:
    """How /proc/net/tcp and tcp6 write an address: an IPv4 one may also be on an IPv6 socket, mapped."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return (_words(ip.packed, port),)
        ip = ip.ipv4_mapped
    return _words(ip.packed, port), _words(b"\0" * 10 + b"\xff\xff" + ip.packed, port)


def _words(packed: bytes, port: int) -> str:
    words = (int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _sockets() -> Iterator[tuple[str, str, str, str]]:
    """(local, remote, state, inode) of every TCP socket, as the kernel spells them."""
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # no IPv6 in this kernel
            # Through our own process: /proc/net itself is not there under ProcSubset=pid.
            for line in (_PROC / "self" / "net" / name).read_text().splitlines()[1:]:
                column = line.split()
                yield column[1], column[2], column[3], column[9]


def _held(pid: int) -> frozenset[str]:
    """Collect the inodes of the sockets that a process has open."""
    found: set[str] = set()
    try:
        directory = os.open(f"{_PROC}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return _held_by_info(pid)
    try:
        for name in os.listdir(directory):  # noqa: PTH208 - pathlib takes no descriptor
            with suppress(OSError):
                link = os.readlink(name, dir_fd=directory)
                if link.startswith("socket:["):
                    found.add(link[8:-1])
    except OSError:  # it may be opened, but not listed
        return _held_by_info(pid)
    finally:
        os.close(directory)
    return frozenset(found)


def _held_by_info(pid: int) -> frozenset[str]:
    """Do the same with CAP_SYS_PTRACE alone: what another user's process has in `fd` only that user may list.

    fdinfo tells the inode since Linux 5.14; a socket is told from a file of the same number by its mount.
    """
    found: set[str] = set()
    with suppress(OSError), socket.socket(socket.AF_UNIX) as own:
        sockets = _fdinfo(_PROC / "self" / "fdinfo" / str(own.fileno())).get("mnt_id")
        for entry in (_PROC / str(pid) / "fdinfo").iterdir():
            with suppress(OSError):
                told = _fdinfo(entry)
                if told.get("mnt_id") == sockets and "ino" in told:
                    found.add(told["ino"])
    return frozenset(found)


def _fdinfo(path: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)


def _pids() -> tuple[int, ...]:
    return tuple(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _status(pid: int) -> dict[str, str]:
    text = (_PROC / str(pid) / "status").read_text("utf-8", "replace")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def _link(pid: int, name: str) -> str | None:
    try:
        return str((_PROC / str(pid) / name).readlink())
    except OSError:
        return None


def started_at(pid: int) -> float | None:
    """When a process was started, in seconds since the epoch; None when it is gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        boot = next(
            int(line.split()[1])
            for line in (_PROC / "stat").read_text().splitlines()
            if line.startswith("btime")
        )
    except (OSError, IndexError, StopIteration, ValueError):
        return None
    return boot + int(stat[19]) / os.sysconf("SC_CLK_TCK")
