"""A real journald of its own, in a private mount namespace; the machine's stays out of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.process import Completed, LabError, until
from lab.tools import JOURNALD

# /dev/kmsg is covered: it would tell the kernel's log of the machine that it starts and ends.
_START = """
mkdir -p /run/systemd &&
mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/journal /run/systemd/journald.conf.d &&
mkdir -p /run/log && mount -t tmpfs tmpfs /run/log && mkdir /run/log/journal &&
mount --bind /dev/null /dev/kmsg && mount --bind "$1/machine-id" /etc/machine-id &&
cp "$1/journald.conf" /run/systemd/journald.conf.d/lab.conf && exec "$2"
"""
_SETTINGS = """[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
ForwardToSyslog=no
ForwardToWall=no
RateLimitIntervalSec=0
"""


class Journald:
    """A context manager; `run` runs a command whose journal it is."""

    def __enter__(self) -> Journald:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stapleguard-journal-")))
            identity = Path("/proc/sys/kernel/random/uuid").read_text().replace("-", "")
            (folder / "machine-id").write_text(identity)
            (folder / "journald.conf").write_text(_SETTINGS)
            words = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]
            with (folder / "log").open("wb") as log:
                self._daemon = subprocess.Popen(
                    [*words, "sh", "-c", _START, "sh", str(folder), str(JOURNALD)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            stack.callback(self._daemon.wait, 10)
            stack.callback(self._daemon.terminate)
            self._log = folder / "log"
            until(self._ready, "journald's socket")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _ready(self) -> bool:
        if self._daemon.poll() is not None:
            raise LabError(f"journald ended with {self._daemon.returncode}\n{self._log.read_text()}")
        # Until the mounts are made this is the machine's own socket: only our journald has ours open.
        command = Path(f"/proc/{self._daemon.pid}/comm").read_text()
        socket = Path(f"/proc/{self._daemon.pid}/root/run/systemd/journal/socket")
        return command.startswith("systemd-journal") and socket.exists()

    def run(self, *argv: str, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> Completed:
        """Run a command to its end."""
        began = time.monotonic()
        done = subprocess.run(
            ["nsenter", f"--mount=/proc/{self._daemon.pid}/ns/mnt", "-w/", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=env,
        )
        return Completed(argv, done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """Every entry that matches, oldest first."""
        self.run("journalctl", "--sync").succeeded()
        done = self.run("journalctl", "--output=json", "--all", "--no-pager", *matches)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
