"""Kill the deployment at its state-changing calls: what nginx would load is always one whole generation.

`strace -e inject=CALL:signal=SIGKILL:when=K` ends the process at the K-th call of that name, which is then
not done. After each: what `live/NAME` leads to is complete and agrees with itself, and the next run heals
the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from lab.tools import require
from site_lab import NAME, Site
from stapleguard.rehearsal.webserver import find_nginx

pytestmark = pytest.mark.server

CALLS = ("mkdir", "write", "fsync", "rename", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir")
"""Creating a file is not listed: to die before its first write is to die after it was created."""
STEP = int(os.environ.get("STAPLEGUARD_SWEEP_STEP", "24"))
"""Every how manieth kill point is tried; `make sweep` tries them all."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("strace", "nginx")
    binary = find_nginx()
    assert binary
    made = Site(binary, tmp_path, workers=1)
    yield made
    made.close()


def whole(state: Path) -> str:
    """Return '' when nothing is live or the live generation is complete, else what is broken."""
    live = state / "live" / NAME
    if not os.path.lexists(live):
        return ""
    try:
        manifest = json.loads((live / "MANIFEST.json").read_bytes())
        for name, digest in manifest["sha256"].items():
            if hashlib.sha256((live / name).read_bytes()).hexdigest() != digest:
                return f"{name} differs"
        include = (live / "nginx.conf").read_text()
        identity = live.resolve().name
        leaf = x509.load_pem_x509_certificate((live / "cert.pem").read_bytes())
        key = serialization.load_pem_private_key((live / "privkey.pem").read_bytes(), None)
        if key.public_key() != leaf.public_key():
            return "the key is another's"
    except (OSError, ValueError) as error:
        return repr(error)
    return "" if f"/{identity}/fullchain.pem" in include else "the include names another generation"


def stable() -> dict[str, str]:
    """Without compiled modules being written, whose calls would shift the ordinals from run to run."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def boundaries(site: Site) -> list[tuple[str, int]]:
    """List (call, ordinal) of every state-changing call on the state directory."""
    trace = site.directory / "trace"
    words = ["strace", "-y", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"]
    argv = [*words, *site.argv("deploy", str(site.lineage))]
    subprocess.run(argv, capture_output=True, check=False, env=stable())
    seen: Counter[str] = Counter()
    points = []
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        seen[match[1]] += 1
        if str(site.state) in line:
            points.append((match[1], seen[match[1]]))
    return points


def sweep(site: Site, start: Path) -> tuple[int, list[str]]:
    """Kill at each boundary from the same starting state; return how many there were and what broke."""

    def reset() -> None:
        shutil.rmtree(site.state, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, site.state, symlinks=True)

    reset()
    points = boundaries(site)
    broken = []
    for call, ordinal in points[::STEP]:
        reset()
        inject = f"inject={call}:signal=SIGKILL:when={ordinal}"
        words = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        argv = [*words, *site.argv("deploy", str(site.lineage))]
        killed = subprocess.run(argv, capture_output=True, check=False, env=stable())
        at = f"{call} #{ordinal}"
        if killed.returncode not in (-9, 137):
            broken.append(f"{at}: not killed ({killed.returncode})")
        if fault := whole(site.state):
            broken.append(f"{at}: {fault}")
        healed = site.deploy()
        fresh = (site.state / "live" / NAME / "cert.pem").read_bytes() == (
            site.lineage / "cert.pem"
        ).read_bytes()
        if healed.status not in (0, 7) or not fresh or whole(site.state):
            broken.append(f"{at}: not healed (exit {healed.status}): {healed.err[-200:]}")
        leftovers = [path.name for path in site.state.rglob(".*")]
        if leftovers:
            broken.append(f"{at}: left {leftovers}")
    return len(points[::STEP]), broken


def test_every_kill_point_of_a_first_deploy_and_of_a_renewal(site: Site) -> None:
    site.renew(ocsp_url=None)
    site.nginx.write_config("")
    first, broken = sweep(site, site.directory / "nowhere")
    print(f"\nfirst deploy: {len(broken)} broken of {first} kill points", *broken, sep="\n  ")
    assert first > 40 // STEP
    assert not broken
    before = site.directory / "before"
    shutil.copytree(site.state, before, symlinks=True)
    site.renew(ocsp_url=None)
    again, broken = sweep(site, before)
    print(f"renewal: {len(broken)} broken of {again} kill points", *broken, sep="\n  ")
    assert again > 40 // STEP
    assert not broken


MUTANT = """
import pathlib, stapleguard.disk as disk
def publish(self, lineage, identity):
    live = self.live_path(lineage)
    live.unlink(missing_ok=True)
    live.symlink_to(pathlib.Path("..") / "generations" / lineage / identity)
disk.StateDirectory.publish = publish
from stapleguard.cli import main
main()
"""


def test_the_sweep_notices_unlink_and_symlink(site: Site) -> None:
    """The failing twin: without the one rename there is a moment at which nothing is live."""
    site.renew(ocsp_url=None)
    site.nginx.write_config("")
    site.deploy()
    site.renew(ocsp_url=None)
    argv = [sys.executable, "-c", MUTANT, *site.argv("deploy", str(site.lineage))[3:]]
    inject = "inject=symlink:signal=SIGKILL:when=1"
    subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", "trace=symlink", "-e", inject, *argv], check=False
    )
    assert not os.path.lexists(site.state / "live" / NAME)
