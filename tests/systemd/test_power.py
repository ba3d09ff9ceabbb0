"""The power fails in the middle of a deployment: healed at boot, before nginx starts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from lab.booted import Booted
from lab.process import until
from lab.tools import require
from served import NAME, SOURCE, STATE, Served
from stapleguard.rehearsal.authority import AnswerOptions
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.systemd


@pytest.fixture(scope="module")
def box() -> Iterator[Booted]:
    require("container", "nginx-unit")
    with Booted("multi-user.target") as made:
        yield made


@pytest.fixture(scope="module")
def site(box: Booted) -> Iterator[Served]:
    with Served(box) as made:
        made.open()
        box.run("systemctl", "enable", "nginx").succeeded()
        made.stapleguard("install").succeeded()
        yield made


def record(box: Booted) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.path(f"{STATE}/journal/{NAME}.json").read_text())
    return found


def started(box: Booted, after: str) -> list[str]:
    """What systemd says that it did with our unit and with nginx."""
    kept = ("stapleguard-recover.service", "nginx.service")
    return [str(one["MESSAGE"]) for one in box.journal("_PID=1", after=after) if one.get("UNIT") in kept]


def in_order(told: list[str]) -> bool:
    """Whether our unit had ended before nginx began."""
    ours = next(i for i, text in enumerate(told) if text.startswith("Finished stapleguard-recover"))
    return ours < next(i for i, text in enumerate(told) if text.startswith("Starting nginx"))


def cut_in(box: Booted, site: Served, state: str) -> None:
    """Deploy, and cut the power when the transaction is about to do this act."""
    site.responder.set_mode(Mode.UNAUTHORIZED)  # the proof then lasts as long as its patience
    argv = box.enter("stapleguard", "deploy", SOURCE)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        until(lambda: record(box)["state"] == state, f"the act {state}")
        box.cut_power()
        run.wait(10)
    site.responder.set_mode(Mode.GOOD)


def test_what_was_left_is_healed_before_nginx_starts(box: Booted, site: Served) -> None:
    new = site.renew()
    before = box.cursor()
    cut_in(box, site, "prove")
    box.boot()
    assert in_order(started(box, before))
    assert record(box)["state"] == "sealed"
    assert box.show("stapleguard-recover.service", "Result") == "success"
    seen = site.look()
    assert seen.leaf == new.certificate
    # What could not be seen at boot is proved by the timer's command.
    assert site.stapleguard("retry", "--due").status == 0
    assert site.serves(new)


def test_a_staple_that_ended_while_it_was_off_is_not_served(box: Booted, site: Served) -> None:
    site.configure('[policy]\nprime = "file"\n')
    # So near its end it is as good as ended; a responder that has nothing newer.
    site.responder.set_good(AnswerOptions(this_update=timedelta(hours=-1), next_update=timedelta(minutes=2)))
    new = site.renew()
    assert site.stapleguard("deploy", SOURCE).status == 0
    assert "ssl_stapling_file" in include(box)
    before = box.cursor()
    box.power_off()
    site.responder.set_mode(Mode.TRY_LATER)
    box.boot()
    assert in_order(started(box, before))
    assert "ssl_stapling_file" not in include(box)
    assert "ssl_stapling on" in include(box)
    seen = site.look()
    assert (seen.leaf, seen.status) == (new.certificate, None)
    site.responder.set_mode(Mode.GOOD)


def include(box: Booted) -> str:
    return box.path_in(f"{STATE}/live/{NAME}/nginx.conf").read_text()
