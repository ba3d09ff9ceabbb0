"""A real systemd as PID 1 of a container of its own, over an overlay of this machine's root, or of another.

Private pid, mount, net, uts, ipc and cgroup namespaces; no capability to set the clock, load modules,
reach hardware or reboot. What is written in there lives in a tmpfs that survives a power-off, as its network
does, and ends with the context manager. `boot.sh` is what happens between the kernel and systemd.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from lab.process import Completed, LabError, until
from lab.tools import REPOSITORY

# Entering a namespace gives back every capability that the container has dropped.
DROPPED = "-sys_time,-sys_module,-sys_rawio,-sys_boot,-syslog,-audit_control,-audit_read"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GROUP = "stapleguard-lab-"
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_number = itertools.count()

ROOT = Path(os.environ.get("STAPLEGUARD_SYSTEMD_ROOT") or "/")
"""What containers lie over: the root of this machine, or one of `tests/make-root` with its own Python."""
PLACE = "/opt/stapleguard"
"""Where a container has the checkout and its Python: PrivateTmp= and ProtectHome= may hide the originals."""
_PACKAGES = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
_PREFIX = Path(sys.base_prefix)
_OWN = Path("/") == ROOT
_BROUGHT = _OWN and Path("/usr") != _PREFIX
"""Whether the tests' Python lies where the sandbox of a unit may hide it."""
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHON = f"{PLACE}/python/bin/python{_VERSION}" if _BROUGHT else f"/usr/bin/python{_VERSION}"
if not _OWN:
    PYTHON = f"{PLACE}/venv/bin/python"
LAUNCHER = f"""#!{PYTHON} -I
import sys
sys.path[:0] = ["{PLACE}/checkout/hook", "{PLACE}/packages"]
"""
"""How a program that is written into the container begins, to have what the tests themselves have."""

# Holds the network, the tmpfs and a view of cgroup2 (a host with the hybrid layout has it elsewhere, one
# with the old layout nowhere) for as long as our end of the pipe is open.
_CASE = """
ip link set lo up &&
mount -t tmpfs -o mode=0755 tmpfs "$1/disk" && mkdir "$1/disk/upper" "$1/disk/work" "$1/disk/root" &&
mount -t cgroup2 cgroup2 "$1/cgroup" && echo ready && exec cat
"""
_POWER = """
group=$1; shift
mkdir "$group" && echo $$ >"$group/cgroup.procs" && exec "$@"
"""


class Booted:
    """A context manager: a container that is on."""

    def __init__(self, unit: str = "basic.target") -> None:
        self.unit = unit
        self._stack = contextlib.ExitStack()
        self._power: subprocess.Popen[bytes] | None = None
        self._name = f"{_GROUP}{os.getpid()}-{next(_number)}"

    def __enter__(self) -> Booted:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stapleguard-booted-")))
            self.folder.chmod(0o755)
            for name in ("disk", "cgroup"):
                (self.folder / name).mkdir()
            self._case = self._hold(stack)
            stack.callback(self._leave_no_group)
            stack.callback(self._cut)
            self.upper = self._view / "disk/upper"
            (self.upper / "usr/bin").mkdir(parents=True)
            launcher = self.upper / "usr/bin/stapleguard"
            launcher.write_text(f"{LAUNCHER}from stapleguard.cli import main\nmain()\n")
            launcher.chmod(0o755)
            self.boot()
            if _BROUGHT:
                # A Python with a shared library finds it under the original path, which ProtectHome= hides.
                self.write("/etc/ld.so.conf.d/00-stapleguard-lab.conf", f"{PLACE}/python/lib\n")
                self.run("ldconfig").succeeded()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def path(self, inside: str) -> Path:
        """Where a file that was written inside is found from outside (what was only read is not there)."""
        return self.upper / inside.lstrip("/")

    # -- power

    def boot(self, *, wait: bool = True) -> None:
        """Switch it on; with `wait` until everything that is started at boot has been."""
        boot = Path(__file__).with_name("boot.sh")
        binds = [
            (REPOSITORY, f"{PLACE}/checkout"),
            *(((Path(sys.prefix) / _PACKAGES, f"{PLACE}/packages"),) if _OWN else ()),
            *(((_PREFIX, f"{PLACE}/python"),) if _BROUGHT else ()),
        ]
        pairs = [str(item) for pair in binds for item in pair]
        spaces = ("--pid", "--mount", "--uts", "--ipc", "--cgroup")
        unshare = ["unshare", "--fork", "--kill-child", *spaces, "--propagation", "private"]
        given = (str(self.folder / "disk"), str(ROOT), self.unit, DROPPED)
        command = [*unshare, "sh", str(boot), *given, *pairs]
        with (self.folder / "boot.log").open("ab") as log:
            self._power = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "nsenter"),
                    *(f"--mount={self._spaces}/mnt", f"--net={self._spaces}/net"),
                    *("sh", "-c", _POWER, "sh", str(self._group), *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._is_systemd, "systemd as PID 1", 30)
        if wait:
            self.settle()

    def settle(self) -> str:
        """Wait until what is started at boot has been, and return the state of the whole."""
        until(lambda: self.path_in("/run/systemd/private").exists(), "systemd's own socket", 30)
        return self.run("systemctl", "is-system-running", "--wait").stdout.strip()

    def power_off(self) -> None:
        """Shut down in order."""
        self.run("systemctl", "poweroff")
        assert self._power is not None
        self._power.wait(30)
        self._leave_no_group()

    def cut_power(self) -> None:
        """End everything at once, as a crash of the host does."""
        self._cut()
        self._leave_no_group()

    def _cut(self) -> None:
        if self._power is not None:
            self._power.kill()
            self._power.wait()

    # -- inside

    @property
    def pid(self) -> int:
        """The host's number of the container's PID 1."""
        assert self._power is not None
        if self._power.poll() is not None:
            raise LabError(f"the container ended with {self._power.returncode}\n{self.boot_log()}")
        children = Path(f"/proc/{self._power.pid}/task/{self._power.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def path_in(self, inside: str) -> Path:
        """A path of the running container, seen from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def enter(self, *argv: str, env: Mapping[str, str] | None = None) -> list[str]:
        """The argv that runs a command inside, without the capabilities that the container lacks."""
        given = [f"{name}={value}" for name, value in (env or {}).items()]
        return [
            *("setpriv", "--pdeathsig", "TERM", "nsenter", "-t", str(self.pid)),
            *("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"),
            *("setpriv", "--bounding-set", DROPPED, "--inh-caps=-all"),
            *("env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", "HOME=/root", *given, *argv),
        ]

    def run(self, *argv: str, env: Mapping[str, str] | None = None, timeout: float = 90.0) -> Completed:
        """Run a command inside to its end, in no unit's control group."""
        began = time.monotonic()
        done = subprocess.run(
            self.enter(*argv, env=env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Completed(argv, done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def on_its_network(self, make: Callable[[], T]) -> T:
        """Call a function whose sockets are the container's; they go on being that wherever they are used."""

        def enter_and_make() -> T:
            with Path(f"{self._spaces}/net").open() as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET) != 0:
                    raise LabError(f"cannot enter the network: {os.strerror(ctypes.get_errno())}")
            return make()

        # A network namespace belongs to a thread: this one ends, and with it the visit.
        with ThreadPoolExecutor(1) as visitor:
            return visitor.submit(enter_and_make).result()

    def service(self, unit: str, *argv: str, properties: Sequence[str] = ()) -> None:
        """Start a daemon as a transient unit."""
        wanted = [f"--property={one}" for one in properties]
        self.run("systemd-run", "--quiet", f"--unit={unit}", *wanted, *argv).succeeded()

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside, with its parents."""
        file = self.path_in(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def cursor(self) -> str:
        """Where the container's journal ends now."""
        self.run("journalctl", "--sync").succeeded()
        last = self.run("journalctl", "--quiet", "--lines=0", "--show-cursor").succeeded()
        return last.stdout.strip().removeprefix("-- cursor: ")

    def journal(self, *matches: str, after: str = "") -> list[dict[str, Any]]:
        """Every entry of the container's journal that matches, oldest first, or those after a cursor."""
        self.run("journalctl", "--sync").succeeded()
        # systemd 252 skips one entry too many when the one at the cursor does not match: matched here then.
        where = [f"--after-cursor={after}"] if after else [*matches]
        done = self.run("journalctl", "--output=json", "--all", "--no-pager", *where)
        entries = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        wanted = [tuple(match.split("=", 1)) for match in matches if after]
        return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted)]

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def boot_log(self) -> str:
        """What was said before systemd had a journal."""
        return (self.folder / "boot.log").read_text(errors="replace")[-4000:]

    # -- the case

    def _hold(self, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        unshare = ["unshare", "--mount", "--net", "--propagation", "private"]
        argv = [*unshare, "sh", "-c", _CASE, "sh", str(self.folder)]
        case = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(case.communicate, timeout=10)
        assert case.stdout is not None
        if case.stdout.readline() != b"ready\n":
            raise LabError("no private mount namespace with an overlay and cgroup2: is this root?")
        self._view = Path(f"/proc/{case.pid}/root{self.folder}")
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
        self._groups = self.folder / "cgroup" / own[3:].strip("/")
        return case

    @property
    def _spaces(self) -> str:
        return f"/proc/{self._case.pid}/ns"

    @property
    def _group(self) -> Path:
        """Our control group as it is seen from inside the case."""
        return self._groups / self._name

    def _is_systemd(self) -> bool:
        pid = self.pid
        with contextlib.suppress(OSError):
            return pid > 0 and Path(f"/proc/{pid}/comm").read_text() == "systemd\n"
        return False

    def _leave_no_group(self) -> None:
        """Remove our control groups, and those that a killed test run could not remove."""
        groups = Path(f"/proc/{self._case.pid}/root{self._groups}")
        until(lambda: not (groups / self._name).exists() or _removed(groups / self._name), "no group left")
        for left in groups.glob(f"{_GROUP}*"):
            owner = left.name.removeprefix(_GROUP).partition("-")[0]
            if not Path(f"/proc/{owner}").exists():
                _removed(left)


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()
