"""nginx as a unit of a real systemd: `systemctl reload` is proved on the wire, or said not to be taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.booted import Booted
from served import SOURCE, Served

pytestmark = pytest.mark.systemd


@pytest.fixture(scope="module")
def site(box: Booted) -> Iterator[Served]:
    with Served(box) as made:
        made.open()
        yield made


def reloads(box: Booted) -> int:
    """How often systemd says that it has reloaded nginx."""
    done = box.journal("_PID=1", "UNIT=nginx.service")
    return sum(1 for entry in done if str(entry["MESSAGE"]).startswith("Reloaded nginx.service"))


def test_nobody_in_there_can_touch_the_clock_of_this_machine(box: Booted) -> None:
    for status in (box.run("cat", "/proc/self/status").stdout, box.run("cat", "/proc/1/status").stdout):
        bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
        assert not bounding & (1 << 25 | 1 << 16 | 1 << 17 | 1 << 22)  # sys_time, module, rawio, boot


def test_systemctl_reloads_it_and_the_new_leaf_is_proved(box: Booted, site: Served) -> None:
    before, new = reloads(box), site.renew()
    ended = site.stapleguard("deploy", SOURCE, "--json")
    assert (ended.status, ended.json["verdict"]) == (0, "verified")
    assert site.serves(new)
    assert reloads(box) == before + 1


def test_a_unit_that_cannot_be_reloaded_is_named_and_the_old_leaf_stays(box: Booted, site: Served) -> None:
    assert site.stapleguard("deploy", SOURCE).status == 0
    old = site.look().leaf
    site.renew()
    box.write(
        "/run/systemd/system/nginx.service.d/broken.conf", "[Service]\nExecReload=\nExecReload=/bin/false\n"
    )
    box.run("systemctl", "daemon-reload").succeeded()
    ended = site.stapleguard("deploy", SOURCE, "--json")
    assert (ended.status, ended.json["verdict"]) == (5, "rolled-back")
    assert ended.json["cause"] == "server.reload-not-taken"
    assert site.look().leaf == old
    box.path_in("/run/systemd/system/nginx.service.d/broken.conf").unlink()
    box.run("systemctl", "daemon-reload").succeeded()
