"""On Debian 13 and its own libraries, the oldest that setup.cfg allows: in a root of `tests/make-root`."""

from __future__ import annotations

import configparser

import pytest
from lab.booted import PYTHON, Booted
from lab.tools import REPOSITORY

pytestmark = pytest.mark.systemd

VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def lower_bounds() -> dict[str, str]:
    """What setup.cfg names for each library."""
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    lines = parser["options"]["install_requires"].strip().splitlines()
    return dict(line.split(">=") for line in lines)  # type: ignore[misc]


def test_what_it_stands_on_is_the_oldest_that_it_allows(box: Booted) -> None:
    assert box.run("systemctl", "--version").stdout.startswith("systemd 257 ")
    assert box.run(PYTHON, "--version").stdout.startswith("Python 3.13.")
    bounds = lower_bounds()
    have = box.run(PYTHON, "-I", "-c", VERSIONS, *bounds).succeeded().json
    print(have)
    older = {name: have[name] for name, bound in bounds.items() if not have[name].startswith(bound)}
    # Debian has a later patch of this one, and does not package crossplane.
    assert older.keys() <= {"structlog", "crossplane"}, older
    assert box.run(PYTHON, "-m", "pip", "check").status == 0


def test_the_fire_drill_ends_well_there(box: Booted) -> None:
    done = box.run("stapleguard", "rehearse", "--json", timeout=240)
    assert done.status == 0, done.stdout + done.stderr
    assert done.json["verdict"] == "verified"
    print(f"a fire drill, {done.seconds:.1f} s")
