"""nginx as a unit of a real systemd: `systemctl reload` is proved on the wire, or said not to be taken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from lab.booted import Booted
from served import NAME, SOURCE, STATE, Served
from stapleguard.rehearsal.authority import AnswerOptions
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.systemd


@pytest.fixture(scope="module")
def site(box: Booted) -> Iterator[Served]:
    with Served(box) as made:
        made.open()
        yield made


def test_it_has_the_layout_of_control_groups_that_is_left(box: Booted) -> None:
    # Version 2 alone, as Debian boots since 11; its controllers are the host's, and no unit of ours uses one.
    assert box.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup").stdout == "cgroup2fs\n"
    own = [line for line in box.run("cat", "/proc/1/cgroup").stdout.splitlines() if line.startswith("0::")]
    assert own == ["0::/init.scope"]


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


def test_doctor_reads_the_journal_where_nginx_writes_no_log_file(box: Booted, site: Served) -> None:
    main = "/etc/nginx/nginx.conf"
    text = box.path_in(main).read_text()
    quiet = text.replace("error_log /var/log/nginx/error.log info;", "error_log stderr info;")
    assert quiet != text
    box.write(main, quiet)
    site.responder.set_mode(Mode.TRY_LATER)
    box.run("systemctl", "restart", "nginx").succeeded()
    ask = ("doctor", "127.0.0.1:443", "--sni", NAME, "--json")
    assert site.stapleguard(*ask).json["cause"] == "ocsp.try-later"
    site.responder.set_mode(Mode.GOOD)
    # Now only what nginx said tells why: it failed then, and waits.
    told = site.stapleguard(*ask).json
    assert told["cause"] == "ocsp.try-later", told["unseen"]
    assert "OCSP response not successful" in str(told["findings"][0]["evidence"])
    box.write(main, text)
    box.run("systemctl", "restart", "nginx").succeeded()


def test_a_renewal_that_no_hook_told_of_is_noticed(box: Booted, site: Served) -> None:
    assert site.stapleguard("retry", "--due").status == 0
    new = site.renew()
    assert site.stapleguard("retry", "--due").stdout == "verdict  verified\n"  # not its time yet
    assert not site.serves(new)
    site.configure("[watch]\ninterval = 0\n")
    assert site.stapleguard("retry", NAME).status == 0
    newer = site.renew()
    assert site.stapleguard("retry", "--due").status == 0
    assert site.serves(newer)
    site.configure()


def test_a_staple_that_a_restart_lost_comes_back(box: Booted, site: Served) -> None:
    site.configure("[watch]\ninterval = 0\n")
    current = site.renew()
    assert site.stapleguard("retry", NAME).status == 0
    box.run("systemctl", "restart", "nginx").succeeded()
    assert not site.look().status  # a cold worker
    assert site.stapleguard("retry", "--due").status == 0
    assert site.serves(current)
    site.configure()


def test_all_that_is_refreshed_costs_one_reload_and_one_question_each(box: Booted, site: Served) -> None:
    names = ("a.site.test", "b.site.test")
    site.configure('[policy]\nprime = "file"\n')
    site.responder.set_good(AnswerOptions(this_update=timedelta(hours=-40), next_update=timedelta(hours=26)))
    issued = [site.renew(name) for name in names]
    site.nginx()
    for name in names:
        assert site.stapleguard("deploy", f"/etc/letsencrypt/live/{name}").status == 7
    site.nginx(*names)
    box.run("systemctl", "restart", "nginx").succeeded()
    before, asked = reloads(box), len(site.responder.hits)
    site.responder.set_good(AnswerOptions())
    told = site.stapleguard("refresh", "--json")
    assert (told.status, [one["lineage"] for one in told.json["refreshed"]]) == (0, [*names])
    assert reloads(box) == before + 1
    assert [one.serial for one in site.responder.hits[asked:]] == [
        one.certificate.serial_number for one in issued
    ]
    # The ACME client's directory stays the origin, though the files were read from the generation.
    manifest = box.path_in(f"{STATE}/live/{names[0]}/MANIFEST.json").read_text()
    assert f"/etc/letsencrypt/live/{names[0]}/cert.pem" in manifest
    again = site.stapleguard("refresh", "--json")
    assert (again.json["refreshed"], reloads(box)) == ([], before + 1)
