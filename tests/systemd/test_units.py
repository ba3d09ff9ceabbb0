"""The units as installed, in a real systemd: hand-over, proof, retry, alerts, crashes, the sandbox."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab.booted import Booted
from lab.process import Completed, until
from served import NAME, SOURCE, STATE, Served
from stapleguard.model import Verdict
from stapleguard.rehearsal.responder import Mode
from stapleguard.report import ALERT_ID, MESSAGE_IDS, OVER_ID

pytestmark = pytest.mark.systemd
WORKER = rf"stapleguard@{NAME}.service"
QUICK = "[retry]\nfloor = 1\ncap = 2\n"


@pytest.fixture(scope="module")
def site(box: Booted) -> Iterator[Served]:
    with Served(box) as made:
        made.configure(QUICK)
        made.open()
        made.stapleguard("install").succeeded()
        # The tests cannot wait for minutes; all else is as it is shipped.
        made.drop_in(
            "stapleguard-retry.timer",
            "[Timer]\nOnActiveSec=\nOnUnitInactiveSec=\nOnUnitInactiveSec=1s\n"
            "OnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=50ms\n",
        )
        made.drop_in("stapleguard@.service", "[Service]\nRestartSec=500ms\n")
        box.run("systemctl", "stop", "stapleguard-retry.timer").succeeded()
        yield made


@pytest.fixture
def timer(box: Booted) -> Iterator[None]:
    box.run("systemctl", "start", "stapleguard-retry.timer").succeeded()
    yield
    box.run("systemctl", "stop", "stapleguard-retry.timer").succeeded()


@pytest.fixture(autouse=True)
def well(box: Booted, site: Served) -> Iterator[None]:
    site.responder.set_mode(Mode.GOOD)
    site.configure(QUICK)
    ended = ("inactive", "failed")
    for unit in (WORKER, "stapleguard-retry.service"):
        until(lambda unit=unit: box.show(unit, "ActiveState") in ended, f"the end of {unit}", 30)
    assert site.stapleguard("deploy", SOURCE).status == 0
    box.run("systemctl", "reset-failed")
    yield
    site.responder.set_mode(Mode.GOOD)


def hook(box: Booted) -> Completed:
    return box.run("stapleguard", "hook", env={"RENEWED_LINEAGE": SOURCE, "RENEWED_DOMAINS": NAME})


@contextmanager
def locked(box: Booted) -> Iterator[None]:
    """Hold the lock of the state directory, as another run does."""
    holder = subprocess.Popen(box.enter("flock", f"{STATE}/lock", "cat"), stdin=subprocess.PIPE)
    with holder:
        until(lambda: box.run("flock", "-n", f"{STATE}/lock", "true").status != 0, "the lock")
        yield
        holder.communicate()


class Since:
    """What the program has told the journal since this was made."""

    def __init__(self, box: Booted) -> None:
        self.box = box
        self.cursor = box.cursor()

    def __call__(self, *matches: str) -> list[dict[str, Any]]:
        return self.box.journal("SYSLOG_IDENTIFIER=stapleguard", *matches, after=self.cursor)

    def wait(self, *matches: str, count: int = 1) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = self(*matches)
            return len(found) >= count

        until(enough, f"{count} records with {matches}", 30)
        return found[-1]


@pytest.fixture
def since(box: Booted, well: None) -> Since:
    return Since(box)


def test_a_hook_hands_over_and_the_unit_proves(box: Booted, site: Served, since: Since) -> None:
    new = site.renew()
    # While another run holds the lock the worker waits, and the hook has returned all the same.
    with locked(box):
        handed = hook(box)
        assert handed.status == 0
        assert box.show(WORKER, "ActiveState") == "activating"
        assert since("VERDICT=verified") == []
    print(f"\nthe hook took {handed.seconds:.2f} s")
    assert handed.stdout.startswith(f"{NAME}: handed over to {WORKER}")
    told = since.wait("VERDICT=verified", f"LINEAGE={NAME}", f"_SYSTEMD_UNIT={WORKER}")
    assert site.serves(new)
    assert (told["MESSAGE_ID"], told["ENDPOINT"]) == (
        MESSAGE_IDS[Verdict.VERIFIED],
        f"{NAME} at 127.0.0.1:443",
    )
    until(lambda: box.show(WORKER, "Result") == "success", "the end of the unit")
    assert list(box.path_in(f"{STATE}/queue").iterdir()) == []


def test_this_systemd_accepts_the_units_and_finds_them_tight(box: Booted, site: Served) -> None:
    place = "/etc/systemd/system"
    units = [f"{name}.service" for name in ("stapleguard@x", "stapleguard-alert@x", "stapleguard-retry")]
    units.append("stapleguard-recover.service")
    analyze = ("systemd-analyze", "--no-pager")
    paths = [f"{place}/{unit}" for unit in (*units, "stapleguard-retry.timer")]
    verified = box.run(*analyze, "verify", "--man=no", *paths)
    assert (verified.status, verified.stderr) == (0, "")
    for unit in units:
        limit = 15 if "alert" in unit else 20
        scored = box.run(*analyze, "security", "--offline=yes", f"--threshold={limit}", f"{place}/{unit}")
        assert scored.status == 0, scored.stdout.splitlines()[-1]
        print(scored.stdout.splitlines()[-1])
    assert box.run(*analyze, "security", "--offline=yes", "--threshold=1", f"{place}/{unit}").status != 0
    site.drop_in("stapleguard-retry.service", "[Service]\nNoSuchKey=yes\n", "bad")
    refused = box.run(*analyze, "verify", "--man=no", f"{place}/stapleguard-retry.service").stderr
    site.drop_in("stapleguard-retry.service", "", "bad")
    assert "NoSuchKey" in refused


def test_without_its_unit_a_hook_stays_in_the_foreground(box: Booted, site: Served) -> None:
    new = site.renew()
    unit = box.path_in("/etc/systemd/system/stapleguard@.service")
    kept = unit.read_text()
    unit.unlink()
    box.run("systemctl", "daemon-reload").succeeded()
    try:
        ended = hook(box)
        assert ended.status == 0
        assert "going on here" in ended.stderr
        assert site.serves(new)
    finally:
        unit.write_text(kept)
        box.run("systemctl", "daemon-reload").succeeded()


def test_the_sandbox_is_in_force_and_the_work_is_done_in_it(box: Booted, site: Served, since: Since) -> None:
    new = site.renew()
    outside = ("/etc", "/etc/letsencrypt/live", "/usr", "/var/lib", "/root", "/run", "/var/log/nginx")
    refused = " && ".join(f"! touch {place}/outside" for place in outside)
    site.drop_in(WORKER, f"[Service]\nExecStartPre=/bin/sh -c '{refused} && touch {STATE}/inside'\n", "probe")
    try:
        done = box.run("systemctl", "start", WORKER)
        assert (done.status, box.show(WORKER, "Result")) == (0, "success"), box.run(
            "journalctl", "-n30"
        ).stdout
        assert not any(box.path(f"{place}/outside").exists() for place in outside)
        assert site.serves(new)
        assert since("VERDICT=verified", f"LINEAGE={NAME}", f"_SYSTEMD_UNIT={WORKER}")
    finally:
        site.drop_in(WORKER, "", "probe")


def test_a_configuration_that_nginx_refuses_is_refused_in_the_sandbox_too(
    box: Booted, site: Served, since: Since
) -> None:
    old, _ = site.look().leaf, site.renew()
    site.nginx(NAME, extra="no_such_directive on;")
    done = box.run("systemctl", "start", WORKER)
    site.nginx(NAME)
    assert done.status == 1
    assert since("VERDICT=refused", "CAUSE=server.config-invalid")
    assert box.show(WORKER, "ExecMainStatus") == "4"
    assert site.look().leaf == old


def test_pending_work_is_finished_by_the_timer(box: Booted, site: Served, since: Since, timer: None) -> None:
    site.responder.set_mode(Mode.UNAUTHORIZED)
    new = site.renew()
    assert hook(box).status == 0
    since.wait("VERDICT=pending")
    until(lambda: box.show(WORKER, "ActiveState") == "inactive", "the end of the unit")
    assert box.show(WORKER, "Result") == "success"  # pending is no failure
    since.wait("VERDICT=pending", "_SYSTEMD_UNIT=stapleguard-retry.service")
    site.responder.set_mode(Mode.GOOD)
    since.wait("VERDICT=verified", f"LINEAGE={NAME}")
    assert site.serves(new)
    assert since(f"MESSAGE_ID={ALERT_ID}") == []


def test_a_trouble_is_told_once_and_once_when_it_is_over(
    box: Booted, site: Served, since: Since, timer: None
) -> None:
    degraded = f"MESSAGE_ID={MESSAGE_IDS[Verdict.DEGRADED]}"
    site.configure(QUICK + "[responder]\npatience = 0\n")
    site.responder.set_mode(Mode.UNAUTHORIZED)
    site.renew()
    assert hook(box).status == 0
    told = since.wait(f"MESSAGE_ID={ALERT_ID}")
    assert (told["LINEAGE"], told["CAUSE"], told["PRIORITY"]) == (NAME, "ocsp.unauthorized", "2")
    since.wait(degraded, count=2)
    site.responder.set_mode(Mode.TRY_LATER)  # the same trouble in other words
    since.wait(degraded, "CAUSE=ocsp.try-later")
    assert len(since(f"MESSAGE_ID={ALERT_ID}")) == 1
    site.responder.set_mode(Mode.GOOD)
    since.wait(f"MESSAGE_ID={OVER_ID}")
    assert len(since(f"MESSAGE_ID={OVER_ID}")) == 1
    assert len(since(f"MESSAGE_ID={ALERT_ID}")) == 1


def test_a_killed_worker_is_started_again_and_nobody_is_paged(
    box: Booted, site: Served, since: Since
) -> None:
    new = site.renew()
    with locked(box):  # it cannot have ended by itself
        assert hook(box).status == 0
        until(lambda: box.show(WORKER, "MainPID") not in ("", "0"), "a running worker")
        box.run("systemctl", "kill", "--signal=KILL", WORKER).succeeded()
        # Asked for while it runs: of a unit that has ended well systemd forgets how often it was started.
        until(lambda: box.show(WORKER, "NRestarts") not in ("", "0"), "another start", 60)
    site.until_serves(new)
    until(lambda: box.show(WORKER, "Result") == "success", "the end of the unit")
    # systemd 257 starts OnFailure= after every attempt that failed, 252 when no other follows.
    alert = f"stapleguard-alert@{WORKER}.service"
    until(lambda: box.show(alert, "ActiveState") == "inactive", "the end of the alert")
    assert since(f"MESSAGE_ID={ALERT_ID}") == []


def test_a_worker_that_dies_each_time_pages_once_and_at_the_end(
    box: Booted, site: Served, since: Since
) -> None:
    alert = f"stapleguard-alert@{WORKER}.service"
    dies = "[Unit]\nStartLimitBurst=3\n[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -KILL $$$$'\n"
    site.drop_in("stapleguard@.service", dies, "zz")
    try:
        box.run("systemctl", "start", WORKER)
        until(lambda: box.show(WORKER, "ActiveState") == "failed", "the limit")
        since.wait(f"MESSAGE_ID={ALERT_ID}", f"FAILED_UNIT={WORKER}")
        until(lambda: box.show(alert, "ActiveState") == "inactive", "the end of the alert")
        entries = box.journal(after=since.cursor)
        (paged,) = [at for at, one in enumerate(entries) if one.get("MESSAGE_ID") == ALERT_ID]
        limit = [at for at, one in enumerate(entries) if "repeated too quickly" in str(one["MESSAGE"])]
        assert limit[0] < paged
        assert box.show(WORKER, "NRestarts") == "3"
    finally:
        site.drop_in("stapleguard@.service", "", "zz")
    assert box.run("systemctl", "reset-failed").status == 0
    assert box.run("systemctl", "start", WORKER).status == 0
    since.wait(f"MESSAGE_ID={OVER_ID}")


def test_a_hook_during_a_run_is_not_lost(box: Booted, site: Served) -> None:
    site.configure(QUICK, fetch="timeout = 2")
    asked = len(site.responder.hits)
    site.responder.set_mode(Mode.SILENT)  # the run has read its files, and waits
    site.renew()
    assert hook(box).status == 0
    assert site.responder.wait_hits(asked + 1, 20)
    newer = site.renew()
    assert hook(box).status == 0
    assert box.show(WORKER, "ActiveState") == "activating"  # this start job merges into the running one
    site.responder.set_mode(Mode.GOOD)
    site.until_serves(newer)


def test_a_hook_that_is_killed_after_its_entry_is_found_by_the_timer(
    box: Booted, site: Served, timer: None
) -> None:
    new = site.renew()
    entry = {"schema": "stapleguard.queue/1", "sources": [SOURCE], "client": "certbot"}
    box.write(f"{STATE}/queue/{NAME}.99999-abcdef.hook", json.dumps(entry), 0o600)
    site.until_serves(new)


def test_sixteen_hooks_at_once(box: Booted, site: Served) -> None:
    new = site.renew()
    argv = box.enter("stapleguard", "hook", env={"RENEWED_LINEAGE": SOURCE, "RENEWED_DOMAINS": NAME})
    hooks = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(16)]
    ended = [(one.communicate(timeout=60), one.returncode) for one in hooks]
    assert [status for _, status in ended] == [0] * 16, ended
    site.until_serves(new)
    until(lambda: box.show(WORKER, "ActiveState") == "inactive", "the end of the unit")
    assert list(box.path_in(f"{STATE}/queue").iterdir()) == []
    assert box.show(WORKER, "Result") == "success"


def test_status_tells_it_at_a_glance(box: Booted, site: Served, timer: None) -> None:
    told = site.stapleguard("status", "--json").json
    (row,) = told["lineages"]
    assert (row["lineage"], row["verdict"], row["pending"]) == (NAME, "verified", False)
    assert row["served"] == [
        {"endpoint": f"{NAME} at 127.0.0.1:443", "leaf_sha256": row["leaf_sha256"], "good_staple": True}
    ]
    assert 0.99 < row["certificate_left"] <= 1.0
    assert told["timer"]["active"]
    plain = site.stapleguard("status").stdout
    assert f"{NAME}  verified" in plain
    assert "timer    looks again" in plain
    assert "█" not in plain
    terminal = box.run("script", "-qec", "stapleguard status", "/dev/null").stdout
    assert "████████████" in terminal


def test_a_unit_that_reaches_no_verdict_is_told_of_too(box: Booted, site: Served, since: Since) -> None:
    site.configure("[no_such_table]\nkey = 1\n")
    for _ in range(2):
        assert box.run("systemctl", "start", WORKER).status != 0
        assert box.show(WORKER, "ExecMainStatus") == "2"
        until(
            lambda: box.show(f"stapleguard-alert@{WORKER}.service", "ActiveState") == "inactive", "the alert"
        )
    told = since.wait(f"MESSAGE_ID={ALERT_ID}")
    assert (told["FAILED_UNIT"], told["MESSAGE"].startswith(f"{WORKER}: ended with")) == (WORKER, True)
    site.configure(QUICK)
    assert box.run("systemctl", "start", WORKER).status == 0
    since.wait(f"MESSAGE_ID={OVER_ID}")
    assert len(since(f"MESSAGE_ID={ALERT_ID}")) == 1


def test_uninstall_takes_everything_back_and_the_server_goes_on(box: Booted, site: Served) -> None:
    site.configure('[policy]\nprime = "file"\n')
    new = site.renew()
    assert site.stapleguard("deploy", SOURCE).status == 0
    include = box.path_in(f"{STATE}/live/{NAME}/nginx.conf")
    assert "ssl_stapling_file" in include.read_text()
    site.drop_in("stapleguard@.service", "", "lab")
    said = site.stapleguard("uninstall").succeeded().stdout
    assert f"the staple file of {NAME} is withdrawn: verified" in said
    assert "ssl_stapling_file" not in include.read_text()
    assert site.serves(new)  # the server fetches for itself
    assert box.show("stapleguard@x.service", "LoadState") == "not-found"
    assert not box.path_in("/etc/letsencrypt/renewal-hooks/deploy/stapleguard").exists()
    assert site.stapleguard("uninstall").succeeded().stdout.strip() == "nothing to do"
