"""Fixtures of the tests in a real systemd: one container for each module, since each boots in a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.booted import ROOT, Booted
from lab.tools import require

# Each has something to say about one root only: the journald of this machine, the libraries of another.
collect_ignore = ["test_debian13.py" if Path("/") == ROOT else "test_journald.py"]


@pytest.fixture(scope="module")
def box() -> Iterator[Booted]:
    require("container", "nginx-unit")
    with Booted() as made:
        yield made
    assert left_behind() == []


def left_behind() -> list[str]:
    """Mounts, control groups and directories of our containers on the host: none, once they are off."""
    mounts = [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if "stapleguard-boot" in line
    ]
    groups = [str(one) for one in Path("/sys/fs/cgroup").glob(f"**/stapleguard-lab-{os.getpid()}-*")]
    return mounts + groups
