"""The understudy in the sandbox of the unit as it is shipped."""

from __future__ import annotations

import pytest
from lab.booted import Booted
from lab.process import until
from served import NAME, SOURCE, STATE, Served

pytestmark = pytest.mark.systemd
WORKER = rf"stapleguard@{NAME}.service"


def test_the_unit_can_start_one_without_the_right_to_change_its_user(box: Booted) -> None:
    with Served(box) as site:
        site.open()
        site.stapleguard("install").succeeded()
        box.run("systemctl", "stop", "stapleguard-retry.timer").succeeded()
        site.drop_in("stapleguard@.service", f"[Service]\nStandardError=append:{STATE}/said\n")
        new = site.renew()
        handed = box.run("stapleguard", "hook", env={"RENEWED_LINEAGE": SOURCE, "RENEWED_DOMAINS": NAME})
        assert handed.status == 0, handed.stderr
        until(lambda: site.serves(new), "the new certificate", 30)
        until(lambda: box.show(WORKER, "Result") == "success", "the end of the unit", 30)
        said = box.path_in(f"{STATE}/said").read_text()
        assert "understudy nginx: a good staple after" in said, said
        assert ", as our own user" in said, said
