"""The fault laboratory: each fault on a real host, and the cause that doctor names for it.

`make test` plays a sample of every kind; `make faults` plays all and prints the table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_cases import HEALTHY, PAIRS, SINGLE
from lab.faults import Case, Lab, play, wrong
from lab.tools import require
from stapleguard.rehearsal.webserver import find_nginx

pytestmark = pytest.mark.server

ALL = os.environ.get("STAPLEGUARD_FAULTS") == "all"
CASES = [one for one in (*HEALTHY, *SINGLE, *PAIRS) if ALL or one.quick]
PART, PARTS = map(int, os.environ.get("STAPLEGUARD_FAULTS_PART", "0/1").split("/"))
SLOWEST = 15.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    require("nginx", "ip", "nft", "unshare", "mount-namespace")
    binary = find_nginx()
    assert binary is not None
    made = Lab(binary, tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    if ALL:
        text = "\n".join([f"{'case':<44} {'expected':<40} {'named':<40} seconds", *lines])
        print(f"\n{text}")
        if path := os.environ.get("STAPLEGUARD_FAULTS_TABLE"):
            Path(path).write_text(text + "\n")


@pytest.mark.parametrize("case", CASES[PART::PARTS], ids=lambda case: case.name)
def test_the_cause_is_named_and_nothing_healthy_blamed(lab: Lab, table: list[str], case: Case) -> None:
    told = play(lab, case)
    fault = wrong(case, told)
    mark = f"  WRONG: {fault}" if fault else ""
    table.append(
        f"nginx, {case.name:<37} {case.cause or '-':<40} {told.cause or '-':<40} {told.seconds:5.1f}{mark}"
    )
    assert not fault, (told.document["findings"], told.document["unseen"], lab.nginx.log.read_text()[-2000:])
    assert told.seconds < SLOWEST
