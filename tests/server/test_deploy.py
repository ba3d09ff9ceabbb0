"""The transaction on a real nginx with four workers; each success has its failing twin."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from site_lab import NAME, Site
from stapleguard.rehearsal.authority import Issued
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.server


@pytest.fixture
def site(binary: Path, tmp_path: Path) -> Iterator[Site]:
    made = Site(str(binary), tmp_path)
    yield made
    made.close()


def digest(issued: Issued) -> str:
    return hashlib.sha256(issued.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    seen = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        seen[str(path)] = (info.st_ino, info.st_mtime_ns)
    return seen


def test_a_renewal_is_proved_on_every_worker(site: Site) -> None:
    site.open()
    new = site.renew()
    ended = site.deploy()
    assert (ended.status, ended.json["verdict"], ended.json["cause"]) == (0, "verified", None)
    endpoint = ended.json["endpoints"][0]
    assert endpoint["leaf_sha256"] == digest(new)
    assert endpoint["workers"] == {"seen": 4, "stapled": 4, "total": 4, "method": "exact", "confidence": 1.0}
    assert endpoint["staple"]["status"] == "good"


def test_without_a_server_it_says_so_every_time(site: Site) -> None:
    site.nginx.write_config("")
    site.renew()
    for _ in range(2):
        ended = site.deploy()
        assert (ended.status, ended.json["cause"]) == (7, "served.unreachable")
        assert "include " in ended.json["findings"][-1]["remedy"]


def test_a_third_run_writes_nothing_and_reloads_nothing(site: Site) -> None:
    site.open()
    site.renew()
    assert site.deploy().status == 0
    assert site.deploy().status == 0
    before, queries = snapshot(site.state), site.nginx.log.read_text().count("reconfiguring")
    assert site.deploy().json["verdict"] == "verified"
    assert snapshot(site.state) == before
    assert site.nginx.log.read_text().count("reconfiguring") == queries


def test_without_ocsp_url_it_ends_at_once(site: Site) -> None:
    site.open()
    site.renew(ocsp_url=None)
    ended = site.deploy()
    assert (ended.status, ended.json["verdict"]) == (0, "not-applicable")
    assert "ssl_stapling" not in (site.state / "live" / NAME / "nginx.conf").read_text()


def test_a_missing_staple_rolls_back_where_policy_says_so(site: Site) -> None:
    old = site.open()
    site.configure('missing_staple = "rollback"', "[responder]\npatience = 0\n")
    new = site.renew()
    site.responder.set_mode_for(new.certificate.serial_number, Mode.UNAUTHORIZED)
    ended = site.deploy()
    assert (ended.status, ended.json["verdict"], ended.json["cause"]) == (
        5,
        "rolled-back",
        "ocsp.unauthorized",
    )
    assert ended.json["endpoints"][0]["leaf_sha256"] == digest(old)


def test_a_missing_staple_is_an_alert_by_default_and_pending_while_fresh(site: Site) -> None:
    site.open()
    new = site.renew()
    site.responder.set_mode_for(new.certificate.serial_number, Mode.UNAUTHORIZED)
    pending = site.deploy()
    assert (pending.status, pending.json["verdict"]) == (8, "pending")
    site.configure("", "[responder]\npatience = 0\n")
    degraded = site.deploy()
    assert (degraded.status, degraded.json["verdict"], degraded.json["cause"]) == (
        3,
        "degraded",
        "ocsp.unauthorized",
    )
    assert degraded.json["endpoints"][0]["leaf_sha256"] == digest(new)
    site.responder.set_mode_for(new.certificate.serial_number, Mode.GOOD)
    assert site.run("retry").status == 0
    assert not list((site.state / "queue").iterdir())


def test_must_staple_without_an_answer_is_held_and_with_one_is_primed(site: Site) -> None:
    old = site.open()
    site.configure("", "[responder]\nwait = 1\npatience = 0\n")
    new = site.renew(must_staple=True)
    site.responder.set_mode_for(new.certificate.serial_number, Mode.TRY_LATER)
    held = site.deploy()
    assert (held.status, held.json["cause"]) == (5, "ocsp.try-later")
    assert held.json["endpoints"][0]["leaf_sha256"] == digest(old)
    site.responder.set_mode_for(new.certificate.serial_number, Mode.GOOD)
    primed = site.deploy()
    assert (primed.status, primed.json["verdict"]) == (0, "verified")
    assert primed.json["endpoints"][0]["handshakes"]["unstapled"] == 0
    assert (site.state / "live" / NAME / "ocsp.der").is_file()


@pytest.mark.parametrize("mode", [Mode.REVOKED])
def test_a_revoked_certificate_is_refused(site: Site, mode: Mode) -> None:
    site.open()
    live = site.live()
    new = site.renew()
    site.responder.set_mode_for(new.certificate.serial_number, mode)
    ended = site.deploy()
    assert (ended.status, ended.json["cause"], site.live()) == (4, "ocsp.revoked", live)


def test_unfit_material_touches_nothing(site: Site) -> None:
    site.open()
    before = snapshot(site.state)
    site.renew()
    (site.lineage / "privkey.pem").unlink()
    (site.lineage / "privkey.pem").symlink_to(f"../../archive/{NAME}/privkey1.pem")
    ended = site.deploy()
    assert (ended.status, ended.json["cause"]) == (4, "material.key-mismatch")
    assert snapshot(site.state) == before


def test_a_configuration_that_was_broken_before_is_refused(site: Site) -> None:
    site.open()
    live = site.live()
    site.nginx.write_config(site.block() + "\nnonsense on;")
    site.renew()
    ended = site.deploy()
    assert (ended.status, ended.json["cause"], site.live()) == (4, "server.config-invalid", live)
    assert "before anything was touched" in ended.err


def test_a_stopped_nginx_keeps_the_old_generation(site: Site) -> None:
    site.open()
    live = site.live()
    site.nginx.stop()
    site.renew()
    ended = site.deploy()
    assert (ended.status, ended.json["cause"], site.live()) == (7, "server.not-running", live)
    site.nginx.start(site.port)
    assert site.run("retry").status == 0
    assert site.live() != live


def test_a_second_run_at_the_same_time_is_told_to_wait(site: Site) -> None:
    site.open()
    holder = os.open(site.state / "lock", os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    busy = site.deploy()
    os.close(holder)
    assert busy.status == 75
    assert "hint:" in busy.err
    assert site.deploy().status == 0


def test_rollback_puts_the_previous_generation_back(site: Site) -> None:
    old = site.open()
    site.renew()
    assert site.deploy().status == 0
    ended = site.run("rollback", NAME, "--json")
    assert (ended.status, ended.json["verdict"]) == (5, "rolled-back")
    assert ended.json["endpoints"][0]["leaf_sha256"] == digest(old)


def test_check_finds_the_deployed_lineage_good_and_a_foreign_one_bad(site: Site) -> None:
    site.open()
    good = site.run("check", NAME, "--json")
    assert (good.status, good.json["verdict"]) == (0, "verified")
    site.responder.set_mode(Mode.TRY_LATER)
    site.nginx.stop()
    site.nginx.start(site.port)
    bare = site.run("check", NAME, "--json")
    assert (bare.status, bare.json["cause"]) == (3, "ocsp.try-later")


def test_a_lineage_is_looked_at_where_a_person_wants(site: Site) -> None:
    site.open()
    assert site.run("check", NAME).status == 0
    assert site.run("check", NAME, "--address", "127.0.0.1", "--sni", NAME).status == 0
    elsewhere = site.run("check", NAME, "--json", "--address", "127.0.0.2").json
    assert (elsewhere["cause"], elsewhere["exit"]) == ("served.unreachable", 7)
    assert [one["address"] for one in elsewhere["endpoints"]] == ["127.0.0.2"]
    foreign = site.run("check", NAME, "--json", "--sni", "other.test").json
    assert (foreign["cause"], foreign["exit"]) == ("served.name-mismatch", 3)
    refused = site.deploy("--sni", "other.test").json
    assert (refused["cause"], refused["exit"]) == ("material.name-mismatch", 4)
