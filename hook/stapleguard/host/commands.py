"""Programs that we run: no shell, a clean environment, a deadline, bounded output."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from stapleguard.model import StapleguardError

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, whatever the caller's environment says."""

OUTPUT_LIMIT: Final = 1 << 20

_TIMED_OUT: Final = -1
_CANNOT_EXECUTE: Final = 126
_NOT_FOUND: Final = 127
_POLL_SECONDS: Final = 0.05

# How a test puts a resolver of its own under a server that it starts or tests.
_PASSED_THROUGH: Final = ("LD_PRELOAD", "NSS_WRAPPER_")


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended.

    `status` is its exit status; 128 + n when signal n ended it, 127 when there is no such program,
    126 when it cannot be executed, -1 when it ran out of time. `stdout` and `stderr` hold the first
    MiB each, UTF-8 with replacement characters. `seconds` is what it took.
    """

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float


def run(argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> Completed:
    """Run a program to its end or for `timeout` seconds; never raises for what the program does.

    It gets no terminal, no standard input, the root directory as its working directory, and an
    environment of PATH, LANG, HOME and what `env` adds. It leads a process group, and the whole
    group is killed when the time is over or when we are interrupted; a daemon that a finished
    program leaves behind goes on, and is not waited for even if it keeps our pipes open.
    """
    words = tuple(argv)
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(env or {}),
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        return Completed(words, _NOT_FOUND, "", str(error), time.monotonic() - started)
    except (OSError, ValueError) as error:
        return Completed(words, _CANNOT_EXECUTE, "", str(error), time.monotonic() - started)
    try:
        with child:
            try:
                stdout, stderr, status = _follow(child, started + timeout)
            finally:
                # Before `with` waits for it: on timeout, and when a signal handler raised.
                if child.poll() is None:
                    _kill_group(child.pid)
    finally:
        seconds = time.monotonic() - started
    if status is None:
        status, stderr = _TIMED_OUT, f"{stderr}timed out after {timeout:g} s"
    return Completed(words, status, stdout, stderr, seconds)


def with_bind(source: str, target: str, argv: Sequence[str], timeout: float) -> Completed | None:
    """Run a program in a mount namespace of its own in which the file `source` covers `target`.

    Nobody else sees it, and it is gone with the program: a server can test a candidate configuration
    under its final name before anything is published. None when this process may not do that (it
    needs CAP_SYS_ADMIN). Raises StapleguardError when the mount itself is impossible, such as when
    `source` or `target` does not exist.
    """
    done = run([sys.executable, "-I", "-c", _BIND, source, target, *argv], timeout)
    if done.status == 128 + signal.SIGSYS:  # a seccomp filter that kills, as units may have
        return None
    marker, _, rest = done.stderr.partition(" ")
    if marker != _BIND_FAILED:
        return Completed(tuple(argv), done.status, done.stdout, done.stderr, done.seconds)
    number, _, what = rest.strip().partition(" ")
    if int(number) in {errno.EPERM, errno.EACCES, errno.ENOSYS}:
        return None
    raise StapleguardError(
        f"cannot put {source} over {target} for a test: {what}",
        "both must be regular files; see mount_namespaces(7)",
    )


_BIND_FAILED: Final = "stapleguard-bind"

# Python rather than unshare(1) and mount(8): no shell and no quoting between us and execv, and the
# number of the error comes back. The flags are CLONE_NEWNS, MS_REC | MS_PRIVATE and MS_BIND.
_BIND: Final = f"""
import ctypes, os, sys
source, target, *argv = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
text, number = ctypes.c_char_p, ctypes.c_ulong
libc.mount.argtypes = [text, text, text, number, text]

def fail(code, what):
    sys.stderr.write(f"{_BIND_FAILED} {{code}} {{what}}: {{os.strerror(code)}}\\n")
    sys.stderr.flush()
    os._exit(125)

def must(result, what):
    if result != 0:
        fail(ctypes.get_errno(), what)

must(libc.unshare(0x00020000), "unshare")
must(libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None), "mount / private")
must(libc.mount(os.fsencode(source), os.fsencode(target), None, 0x1000, None), "mount")
try:
    os.execvp(argv[0], argv)
except OSError as error:
    sys.stderr.write(f"{{error}}\\n")
    sys.stderr.flush()
    os._exit(127 if isinstance(error, FileNotFoundError) else 126)
"""


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_THROUGH)}
    home = os.environ.get("HOME", "/")
    return {**kept, "PATH": PATH, "LANG": "C.UTF-8", "HOME": home, **extra}


def _follow(child: subprocess.Popen[bytes], deadline: float) -> tuple[str, str, int | None]:
    """Collect both outputs until the program ends; the status is None when the time was over first."""
    if child.stdout is None or child.stderr is None:
        raise AssertionError("both outputs are pipes")
    texts: dict[int, bytearray] = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for descriptor in texts:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            # Asked before reading: what a program wrote before its end is then seen below.
            ended = child.poll() is not None
            ready = selector.select(0 if ended else min(left, _POLL_SECONDS))
            if ended and not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                texts[key.fd] += chunk[: OUTPUT_LIMIT - len(texts[key.fd])]
    status: int | None = None
    with suppress(subprocess.TimeoutExpired):
        status = child.wait(max(0.0, deadline - time.monotonic()))
    stdout, stderr = (bytes(text).decode("utf-8", "replace") for text in texts.values())
    return stdout, stderr, status if status is None or status >= 0 else 128 - status


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
