"""Programs that we run: no shell, a clean environment, a deadline, bounded output."""

from __future__ import annotations

import errno
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
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


def run(
    argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None, given: bytes = b""
) -> Completed:
    """Run a program to its end or for `timeout` seconds; never raises for what the program does.

    It gets no terminal, `given` and nothing else on standard input, the root directory as its
    working directory, and an environment of PATH, LANG, HOME and what `env` adds. It leads a process
    group, and the whole group is killed when the time is over or when we are interrupted; a daemon
    that a finished program leaves behind goes on, and is not waited for even if it keeps our pipes open.
    """
    words = tuple(argv)
    started = time.monotonic()
    stdin = _input(given)
    try:
        child = subprocess.Popen(
            words,
            stdin=stdin,
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
    finally:
        if stdin != subprocess.DEVNULL:
            os.close(stdin)
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


def signalled(pid: int, number: signal.Signals) -> Completed:
    """Send a signal, told like a program that did so: status 0, or 1 and the reason in `stderr`."""
    started = time.monotonic()
    words = ("kill", f"-{number.name.removeprefix('SIG')}", str(pid))
    try:
        os.kill(pid, number)
    except OSError as error:
        return Completed(words, 1, "", error.strerror or str(error), time.monotonic() - started)
    return Completed(words, 0, "", "", time.monotonic() - started)


def _input(given: bytes) -> int:
    """A descriptor to read `given` from; a file in memory, since a pipe would have to be fed meanwhile."""
    if not given:
        return subprocess.DEVNULL
    memory = os.memfd_create("stapleguard-input", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(given)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def with_bind(source: str, target: str, argv: Sequence[str], timeout: float) -> Completed | None:
    """Run a program in a mount namespace of its own in which the file `source` covers `target`.

    Both may be directories instead. Nobody else sees it, and it is gone with the program: a server can
    test a candidate configuration under its final name before anything is published. None when this
    process may not do that (it needs CAP_SYS_ADMIN). Raises StapleguardError when the mount itself is
    impossible, such as when `source` or `target` does not exist.
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
        "both must be regular files, or both directories; see mount_namespaces(7)",
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


class Child:
    """A program that goes on beside us until `stop`; it does not outlive the thread that started it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def spawn(
        cls, argv: Sequence[str], cwd: Path, log_path: Path, env: Mapping[str, str] | None = None
    ) -> Child:
        """Start a program in `cwd`; both its outputs are appended to `log_path` (made 0600 if missing).

        It gets no terminal, no standard input and the environment that `run` gives. It leads a
        process group of its own, and receives SIGTERM when the calling thread ends, however that
        comes about. A program that is missing or cannot be executed ends with 127 or 126 and a line
        in the log. Raises OSError when `cwd` or the log cannot be opened.
        """
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _TIED, str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(env or {}),
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            os.close(log)
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id, which nobody else can get before `stop`."""
        return self._process.pid

    def poll(self) -> int | None:
        """Tell the exit status, 128 + n when signal n ended it; None while it runs."""
        status = self._process.returncode
        if status is not None:
            return status if status >= 0 else 128 - status
        # Not reaped here: its id, and that of its group, stay ours until `stop` has used them.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status

    def stop(
        self, timeout: float, asking: Sequence[signal.Signals] = (signal.SIGQUIT, signal.SIGTERM)
    ) -> int:
        """End it: ask by one signal after the other, each for `timeout` seconds, then SIGKILL; its status.

        What is left of its process group is killed in any case.
        """
        if self._process.returncode is None:
            try:
                for number in asking:
                    os.kill(self.pid, number)  # a zombie takes it without complaint
                    if self._ends_within(timeout):
                        break
            finally:
                _kill_group(self.pid)
                self._process.wait()
        status = self._process.returncode
        return status if status >= 0 else 128 - status

    def _ends_within(self, timeout: float) -> bool:
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)


# A program between us and the child instead of preexec_fn, which may deadlock in a process with threads.
# SIGTERM rather than SIGKILL (1 is PR_SET_PDEATHSIG): a master process takes its workers along.
# The parent is compared since it may have died before prctl; Python's own SIGPIPE would be inherited.
_TIED: Final = """
import ctypes, os, signal, sys
parent, *argv = sys.argv[1:]
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
if os.getppid() != int(parent):
    os._exit(125)
try:
    os.execvp(argv[0], argv)
except OSError as error:
    sys.stderr.write(f"{argv[0]}: {error.strerror}\\n")
    sys.stderr.flush()
    os._exit(127 if isinstance(error, FileNotFoundError) else 126)
"""
