"""Asking from where another process stands: its network and mount namespace, its user and groups.

A child enters them and tries; nothing of the process itself is touched. What that process may do beyond
its user and namespaces (a unit's IPAddressDeny, SELinux) is not entered.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stapleguard.host.commands import run

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Try:
    """One thing to try: a TCP connection on which `payload` is answered, or a UDP question."""

    transport: str
    address: str
    port: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tried:
    """How it ended: answered, refused, denied, unreachable, silent, mute (connected), closed or reset."""

    outcome: str
    text: str


def differs(pid: int) -> bool:
    """Whether a process stands elsewhere than this one: another user, another network namespace."""
    try:
        mine, theirs = ((_PROC / one / "ns" / "net").readlink() for one in ("self", str(pid)))
        return mine != theirs or (_PROC / str(pid)).stat().st_uid != os.geteuid()
    except OSError:
        return True


def try_as(pid: int, tries: Sequence[Try], timeout: float) -> tuple[Tried, ...] | str:
    """Try everything at once from where `pid` stands; the reason where this process may not."""
    if not tries:
        return ()
    asked = json.dumps([[one.transport, one.address, one.port, one.payload.hex()] for one in tries])
    done = run([sys.executable, "-I", "-c", _CHILD, str(pid), f"{timeout:g}", asked], timeout + 5)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.status}"
    if isinstance(told, str):
        return told
    return tuple(Tried(str(outcome), str(text)) for outcome, text in told)


# Everything is imported before the user changes: that user may not be able to read this Python.
_CHILD: Final = """
import ctypes, errno, json, os, selectors, socket, sys, time
pid, timeout, asked = int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])

def end(value):
    sys.stdout.write(json.dumps(value)); sys.stdout.flush(); os._exit(0)

try:
    lines = open(f"/proc/{pid}/status").read().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
    uid, gid = (int(status[name].split()[1]) for name in ("Uid", "Gid"))
    groups = [int(one) for one in status["Groups"].split()]
    libc = ctypes.CDLL(None, use_errno=True)
    for name, flag in (("net", 0x40000000),):
        theirs, ours = (os.readlink(f"/proc/{one}/ns/{name}") for one in (pid, "self"))
        if theirs != ours:
            descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            if libc.setns(descriptor, flag) != 0:
                end(f"setns {name}: {os.strerror(ctypes.get_errno())}")
    if uid != os.geteuid():
        os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
except (OSError, KeyError, ValueError) as error:
    end(str(error))

NAMES = {errno.ECONNREFUSED: "refused", errno.EPERM: "denied", errno.EACCES: "denied",
         errno.ENETUNREACH: "unreachable", errno.EHOSTUNREACH: "unreachable", errno.ECONNRESET: "reset"}
results = [None] * len(asked)
selector = selectors.DefaultSelector()

def over(index, sock, outcome, text):
    results[index] = [outcome, text]
    try:
        selector.unregister(sock)
    except (KeyError, ValueError):
        pass
    sock.close()

def failed(index, sock, number):
    over(index, sock, NAMES.get(number, "unreachable"), os.strerror(number))

for index, (transport, address, port, payload) in enumerate(asked):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    try:
        number = sock.connect_ex((address, port))
        if number not in (0, errno.EINPROGRESS):
            failed(index, sock, number); continue
        if transport == "udp":
            sock.send(bytes.fromhex(payload))
            selector.register(sock, selectors.EVENT_READ, (index, "sent", payload))
        else:
            selector.register(sock, selectors.EVENT_WRITE, (index, "connecting", payload))
    except OSError as error:
        failed(index, sock, error.errno or errno.EHOSTUNREACH)
deadline = time.monotonic() + timeout
while selector.get_map() and time.monotonic() < deadline:
    for key, _ in selector.select(deadline - time.monotonic()):
        sock, (index, phase, payload) = key.fileobj, key.data
        try:
            if phase == "connecting":
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    failed(index, sock, number); continue
                sock.send(bytes.fromhex(payload))
                selector.modify(sock, selectors.EVENT_READ, (index, "sent", payload))
            else:
                got = sock.recv(4096)
                ended = ("answered", "an answer") if got else ("closed", "closed without an answer")
                over(index, sock, *ended)
        except OSError as error:
            failed(index, sock, error.errno or errno.EHOSTUNREACH)
for key in list(selector.get_map().values()):
    index, phase, _ = key.data
    results[index] = ["silent", f"no answer to SYN within {timeout:g} s"] if phase == "connecting" else \\
        ["mute", f"no answer within {timeout:g} s"]
end(results)
"""
