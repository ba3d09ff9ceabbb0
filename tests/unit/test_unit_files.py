"""Unit names, against systemd's own tool; the unit files, against systemd's own judges."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.tools import REPOSITORY, require
from stapleguard.cli.handover import HANDED_OVER_ID
from stapleguard.report import ALERT_ID, FINDING_ID, MESSAGE_IDS, OVER_ID
from stapleguard.units import escape_instance, worker

pytestmark = pytest.mark.unit

SYSTEMD = REPOSITORY / "systemd"
SERVICES = sorted(SYSTEMD.glob("*.service"))
NEEDS_NO_ROOT = {"stapleguard-alert@.service"}


def test_the_way_of_a_hook_loads_nothing_heavy() -> None:
    code = "import stapleguard.cli.hook, stapleguard.clients.links, sys; print(*sys.modules)"
    argv = [sys.executable, "-c", code]
    loaded = {name.partition(".")[0] for name in subprocess.check_output(argv, text=True).split()}
    assert "stapleguard" in loaded
    assert not loaded & {
        "OpenSSL",
        "cryptography",
        "requests",
        "ssl",
        "structlog",
        "rich",
        "dns",
        "crossplane",
    }


def test_names() -> None:
    assert worker("example.org") == "stapleguard@example.org.service"
    assert worker("foo-bar.test") == r"stapleguard@foo\x2dbar.test.service"
    assert escape_instance("xn--bcher-kva.test-0001") == r"xn\x2d\x2dbcher\x2dkva.test\x2d0001"
    assert escape_instance(".hidden") == r"\x2ehidden"


@settings(max_examples=1)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=60
    )
)
def test_escaping_is_that_of_systemd(texts: list[str]) -> None:
    require("systemd-escape")
    names = ["*.example.org", "_dmarc", "a@b+c", "ünïcode", "-x", "a/b", *texts]
    done = subprocess.run(["systemd-escape", "--", *names], capture_output=True, check=True)
    # It separates by blanks, which no escaped name has.
    assert done.stdout.decode().split() == [escape_instance(name) for name in names]


@pytest.fixture
def startable(tmp_path: Path) -> Path:
    """The units with a program that exists, since `verify` looks for it."""
    require("systemd-analyze")
    for unit in SYSTEMD.iterdir():
        text = unit.read_text().replace("/usr/bin/stapleguard", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def verify(directory: Path) -> str:
    units = [str(directory / one.name.replace("@.", "@x.")) for one in (*SERVICES, *SYSTEMD.glob("*.timer"))]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    return done.stderr + ("" if done.returncode == 0 else f"status {done.returncode}")


def test_systemd_has_nothing_to_say_about_them(startable: Path) -> None:
    assert verify(startable) == ""
    unit = startable / "stapleguard@.service"
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nNoSuchKey=yes"))
    assert "NoSuchKey" in verify(startable)


@pytest.mark.parametrize("service", SERVICES, ids=[one.name for one in SERVICES])
def test_the_sandbox_is_as_tight_as_promised(service: Path) -> None:
    require("systemd-analyze")
    limit = 15 if service.name in NEEDS_NO_ROOT else 20
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    done = subprocess.run(
        [*argv, f"--threshold={limit}", service], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    bare = subprocess.run([*argv, "--threshold=1", service], capture_output=True, check=False)
    assert bare.returncode != 0, "the gate lets everything through"


def test_what_loosens_the_sandbox_is_explained() -> None:
    for service in SERVICES:
        lines = service.read_text().splitlines()
        for position, line in enumerate(lines):
            if line.startswith(
                (
                    "CapabilityBoundingSet=CAP",
                    "SupplementaryGroups=",
                    "RestrictAddressFamilies=",
                    "ProtectHome=read",
                )
            ):
                above = [
                    one for one in lines[max(0, position - 3) : position] if one.startswith("# Loosened: ")
                ]
                assert above, f"{service.name}: {line}"


def test_the_three_root_units_have_one_sandbox() -> None:
    def sandbox(name: str) -> str:
        text = (SYSTEMD / name).read_text().partition("[Install]")[0]
        return text[text.index("# The only place that is written to") :].strip()

    root = [sandbox(one.name) for one in SERVICES if one.name not in NEEDS_NO_ROOT]
    assert len(root) == 3
    assert len(set(root)) == 1


def test_the_catalogue_explains_every_message_id() -> None:
    explained = re.findall(
        r"^-- ([0-9a-f]{32})$", (SYSTEMD / "stapleguard.catalog").read_text(), re.MULTILINE
    )
    ours = [*MESSAGE_IDS.values(), FINDING_ID, ALERT_ID, OVER_ID, HANDED_OVER_ID]
    assert sorted(explained) == sorted(ours)


def test_the_catalogue_asks_for_fields_that_journalctl_can_replace() -> None:
    text = (SYSTEMD / "stapleguard.catalog").read_text()
    assert "@LINEAGE@" in text
    # systemd 252 leaves a name with a digit as it stands.
    assert re.sub("@[A-Z_]+@", "", text).count("@") == 0


def test_journald_takes_the_catalogue(tmp_path: Path) -> None:
    require("journalctl")
    catalogue = tmp_path / "usr/lib/systemd/catalog"
    catalogue.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(SYSTEMD / "stapleguard.catalog", catalogue)
    argv = ["journalctl", f"--root={tmp_path}", "--update-catalog"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "var/lib/systemd/catalog/database").stat().st_size > 1000
