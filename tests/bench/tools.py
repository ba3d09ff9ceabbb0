"""What the benchmark needs besides Python: compilers and peers, installed where a registry has them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.figures import say

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
BUILD = TESTS.parent / "build" / "bench"
_X_CRYPTO = Path("/usr/share/gocode/src/golang.org/x/crypto/ocsp/ocsp.go")
_PLUGINS = "/usr/lib/nagios/plugins"
_SECONDS = 600
_VERSION = re.compile(r"\d+(\.\d+)+\w*")

# COMMAND:PACKAGE, as tests/install-tools takes them.
_PACKAGES = {
    "gcc": "gcc:gcc",
    "ip": "ip:iproute2",
    "openssl": "openssl:openssl",
    "curl": "curl:curl",
    "xargs": "xargs:findutils",
    "testssl": "testssl:testssl.sh",
    "check_ssl_cert": f"{_PLUGINS}/check_ssl_cert:monitoring-plugins-contrib",
    "go": "go:golang-go",
}


def install(names: Sequence[str]) -> None:
    """Ask tests/install-tools for what is missing; it says so when it cannot."""
    wanted = [_PACKAGES[name] for name in names]
    if "go" in names:
        wanted.append(f"{_X_CRYPTO}:golang-golang-x-crypto-dev")
    script = str(TESTS / "install-tools")
    subprocess.run(["sh", script, *wanted], stdout=sys.stderr, timeout=_SECONDS, check=False)


def find(name: str) -> str | None:
    """Find a program; None, and a line for the reader, when this machine has none."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", _PLUGINS))
    found = shutil.which(name, path=path)
    if found is None:
        say(f"{name} is missing on this machine: left out")
    return found


@cache
def compiled(source: str, *flags: str) -> Path | None:
    """Compile a C file of this directory; None without a compiler."""
    gcc = find("gcc")
    if gcc is None:
        return None
    BUILD.mkdir(parents=True, exist_ok=True)
    output = BUILD / Path(source).stem
    command = [gcc, "-O2", "-Wall", "-Wextra", *flags, "-o", str(output), str(HERE / source)]
    subprocess.run(command, check=True, timeout=_SECONDS)
    return output


@cache
def go_client() -> Path | None:
    """Build the Go client; None without Go or without its OCSP package."""
    go = find("go")
    if go is None:
        return None
    if not _X_CRYPTO.exists():
        say("golang.org/x/crypto/ocsp is missing on this machine: Go is left out")
        return None
    output = BUILD / "client"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": str(_X_CRYPTO.parents[5]),
        "GOCACHE": str(BUILD / "go-cache"),
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    build = [go, "build", "-o", str(output), str(HERE / "client.go")]
    subprocess.run(build, check=True, env=environment, timeout=_SECONDS)
    return output


@cache
def sslyze_python() -> Path | None:
    """Give sslyze a virtual environment of its own, since it pins other versions of our dependencies."""
    directory = BUILD / "sslyze"
    python = directory / "bin" / "python"
    if (
        subprocess.run([python, "-c", "import sslyze"], check=False, capture_output=True).returncode == 0
        if (python.exists())
        else False
    ):
        return python
    say("installing sslyze into a virtual environment of its own")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install", "sslyze"]
    for command in (["sh", str(TESTS / "make-venv"), str(directory)], pip):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            say(f"sslyze could not be installed and is left out: {done.stderr.strip()}")
            return None
    return python


def version(*argv: str) -> str:
    """Ask a program for its version."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    found = _VERSION.search(done.stdout + done.stderr)
    return found.group() if found else "of an unknown version"
