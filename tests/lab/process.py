"""Processes of a laboratory: they share one mount namespace, and none outlives the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any


class LabError(Exception):
    """The laboratory itself failed, not what is tested in it."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended: its exit status, what it wrote, and how long it took in seconds."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.stdout)

    def succeeded(self) -> Completed:
        """Itself, or LabError with everything that it wrote."""
        if self.status == 0:
            return self
        raise LabError(f"{' '.join(self.argv)} ended with {self.status}\n{self.stdout}\n{self.stderr}")


def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Poll until the condition holds; LabError says what never came."""
    deadline = time.monotonic() + seconds
    pause = Event()
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        pause.wait(0.01)


class Machine:
    """The private view of the host: /etc/resolv.conf is the laboratory's own.

    A process holds the namespace open and ends when our end of its pipe closes, so nothing is left
    behind even when the test run is killed: every other process asks the kernel for SIGTERM at the
    death of its parent.
    """

    def __init__(self, folder: Path, nameserver: str) -> None:
        self.folder = folder
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text(f"nameserver {nameserver}\noptions timeout:1 attempts:1\n")
        script = 'mount --bind "$1" /etc/resolv.conf && echo ready && exec cat'
        unshare = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            str(resolv_conf),
        ]
        self._started: list[subprocess.Popen[bytes]] = []
        self._holder = subprocess.Popen(unshare, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise LabError("no private mount namespace: is this root?")

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "nsenter",
            f"--mount=/proc/{self._holder.pid}/ns/mnt",
            *argv,
        ]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A small environment: nothing of the person who runs the tests leaks into the laboratory."""
        home = str(self.folder)
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": home, "XDG_CONFIG_HOME": home, "LC_ALL": "C.UTF-8", **(extra or {})}

    def start(
        self, name: str, argv: Sequence[str], extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a daemon in the foreground; its output goes to NAME.log. The pid is the daemon's own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                self._inside(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(extra),
                start_new_session=True,
            )
        self._started.append(child)
        return child

    def run(
        self, argv: Sequence[str], extra: Mapping[str, str] | None = None, timeout: float = 120.0
    ) -> Completed:
        """Run a command to its end; LabError when it does not end in time (its whole session is killed)."""
        began = time.monotonic()
        with subprocess.Popen(
            self._inside(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(extra),
            text=True,
            start_new_session=True,
        ) as child:
            try:
                stdout, stderr = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                os.killpg(child.pid, signal.SIGKILL)
                stdout, stderr = child.communicate()
                text = f"{' '.join(argv)}: not ended after {timeout:.0f} s\n{stdout}\n{stderr}"
                raise LabError(text) from error
        return Completed(tuple(argv), child.returncode, stdout, stderr, time.monotonic() - began)

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        """End one daemon and whatever it started: SIGTERM, then SIGKILL to its session after five seconds."""
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child in self._started:
            self._started.remove(child)

    def close(self) -> None:
        """End everything, last started first."""
        for child in reversed(tuple(self._started)):
            self.stop(child)
        # communicate() closes both pipes; the holder's cat ends at end of file.
        self._holder.communicate(timeout=5)
