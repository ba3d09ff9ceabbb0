"""Issue, renew, prime, prove, refresh and roll back on Apache, HAProxy and lighttpd, each with its twin."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from real_nginx import free_port, until
from real_servers import APACHE, HAPROXY, LIGHTTPD, RECIPES, Guarded, Server, guarded
from site_lab import NAME
from stapleguard import host
from stapleguard.rehearsal.authority import AnswerOptions, Issued
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.server


@pytest.fixture(params=RECIPES)
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=[APACHE, HAPROXY, LIGHTTPD], ids=["apache", "haproxy", "lighttpd"])
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def on_haproxy(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(HAPROXY, tmp_path) as made:
        yield made


@pytest.fixture(params=[HAPROXY, LIGHTTPD], ids=["haproxy", "lighttpd"])
def fileonly(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(request.param, tmp_path) as made:
        yield made


def digest(issued: Issued) -> str:
    return hashlib.sha256(issued.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def test_a_renewal_is_proved_and_rolled_back(on: Guarded) -> None:
    old = on.open()
    new = on.site.renew()
    ended = on.deploy()
    assert (ended.status, ended.json["verdict"], ended.json["cause"]) == (0, "verified", None), ended.err
    endpoint = ended.json["endpoints"][0]
    assert endpoint["leaf_sha256"] == digest(new)
    assert endpoint["staple"]["status"] == "good"
    # lighttpd is met by chance, everyone else worker by worker.
    assert endpoint["workers"]["total"] in (endpoint["workers"]["seen"], None)
    assert (endpoint["workers"]["method"] == "exact") is (on.server.recipe is not LIGHTTPD)
    back = on.site.run("rollback", NAME, "--json")
    assert (back.status, back.json["verdict"]) == (5, "rolled-back"), back.out + back.err
    assert back.json["endpoints"][0]["leaf_sha256"] == digest(old)


def test_a_stopped_server_keeps_the_old_generation(each: Guarded) -> None:
    on = each
    on.open()
    before = on.live.readlink()
    on.server.stop()
    on.site.renew()
    ended = on.deploy()
    assert (ended.status, ended.json["cause"], on.live.readlink()) == (7, "server.not-running", before)


def test_a_configuration_that_was_broken_before_is_refused(each: Guarded) -> None:
    on = each
    on.open()
    before = on.live.readlink()
    on.server.config.write_text(on.server.config.read_text() + "\n}nonsense on\n")
    on.site.renew()
    ended = on.deploy()
    assert (ended.status, ended.json["cause"], on.live.readlink()) == (4, "server.config-invalid", before)


def control(on: Guarded, command: str) -> str:
    return host.control(str(on.server.directory / "admin.sock"), command.encode(), 5) or ""


def serial(issued: Issued) -> str:
    return f"{issued.certificate.serial_number:X}".zfill(40)


def test_haproxy_takes_it_in_memory_and_the_disk_agrees(on_haproxy: Guarded) -> None:
    on = on_haproxy
    on.open()
    begun = on.server.said().count("New worker")
    new = on.site.renew()
    ended = on.deploy()
    assert (ended.status, "updated haproxy without a reload" in ended.err) == (0, True), ended.err
    assert on.server.said().count("New worker") == begun
    bundle = on.live / "bundle.pem"
    assert f"Serial: {serial(new)}" in control(on, f"show ssl cert {bundle}\n")
    assert control(on, f"abort ssl cert {bundle}\n").startswith("No ongoing transaction")
    staple = (on.live / "bundle.pem.ocsp").read_bytes()
    assert staple == (on.live / "ocsp.der").read_bytes()
    on.server.reload()  # from the disk: the same
    until(lambda: on.server.said().count("New worker") == begun + 1)
    again = on.site.run("check", NAME, "--json").json
    assert (again["verdict"], again["endpoints"][0]["leaf_sha256"]) == ("verified", digest(new))


def test_haproxy_is_reloaded_where_its_memory_differs_from_the_disk(on_haproxy: Guarded) -> None:
    """The twin: a crt-list that a person has changed in memory is not patched further."""
    on = on_haproxy
    on.open()
    other = on.server.directory / "other.pem"
    other.write_bytes((on.live / "bundle.pem").read_bytes())
    for command in (f"new ssl cert {other}\n", f"set ssl cert {other} <<\n{other.read_text()}\n\n"):
        control(on, command)
    control(on, f"commit ssl cert {other}\n")
    assert "Success" in control(on, f"add ssl crt-list {on.live}/haproxy.crtlist {other}\n")
    on.site.renew()
    ended = on.deploy()
    assert (ended.status, "reloaded haproxy" in ended.err) == (0, True), ended.err


def test_haproxy_drops_what_a_crash_left_open(on_haproxy: Guarded) -> None:
    on = on_haproxy
    on.open()
    bundle = on.live / "bundle.pem"
    left = (on.live / "issuer.pem").read_text()
    assert "Transaction created" in control(on, f"set ssl cert {bundle}.issuer <<\n{left}\n\n")
    new = on.site.renew()
    ended = on.deploy()
    assert (ended.status, "without a reload" in ended.err) == (0, True), ended.err
    assert ended.json["endpoints"][0]["leaf_sha256"] == digest(new)


def test_a_staple_file_is_refreshed_on_servers_that_cannot_fetch(fileonly: Guarded) -> None:
    on = fileonly
    on.open()
    on.site.responder.set_good(AnswerOptions(this_update=timedelta(days=-6), next_update=timedelta(days=1)))
    on.site.renew()
    assert on.deploy().status == 0
    old = (on.live / "ocsp.der").read_bytes()
    on.site.responder.set_good(AnswerOptions())
    ended = on.site.run("refresh", "--json")
    assert ended.status == 0, ended.out + ended.err
    staple = (on.live / "ocsp.der").read_bytes()
    assert staple != old
    seen = on.site.run("check", NAME, "--json").json
    assert seen["endpoints"][0]["staple"]["sha256"] == hashlib.sha256(staple).hexdigest()


def test_without_its_file_it_is_told_why_there_is_no_staple(fileonly: Guarded) -> None:
    """The twin: warm forbids files, and these two have nothing else."""
    on = fileonly
    on.open()
    on.configure('prime = "warm"', "[responder]\npatience = 0\n")
    on.site.renew()
    ended = on.deploy()
    assert (ended.status, ended.json["cause"]) == (3, "server.stapling-disabled"), ended.out
    assert not (on.live / "ocsp.der").exists()


def test_a_must_staple_certificate_without_an_answer_is_held(each: Guarded) -> None:
    on = each
    old = on.open()
    on.configure("", "[responder]\nwait = 0.5\npatience = 0\n")
    new = on.site.renew(must_staple=True)
    on.site.responder.set_mode_for(new.certificate.serial_number, Mode.TRY_LATER)
    held = on.deploy()
    assert (held.status, held.json["cause"]) == (5, "ocsp.try-later"), held.out
    assert held.json["endpoints"][0]["leaf_sha256"] == digest(old)
    on.site.responder.set_mode_for(new.certificate.serial_number, Mode.GOOD)
    primed = on.deploy()
    assert (primed.status, primed.json["verdict"]) == (0, "verified"), primed.out
    assert primed.json["endpoints"][0]["handshakes"]["unstapled"] == 0


def test_apache_without_a_stapling_cache_is_told_before_it_would_end(tmp_path: Path) -> None:
    with guarded(APACHE, tmp_path) as on:
        on.open()
        before = on.live.readlink()
        text = on.server.config.read_text()
        bare = "\n".join(line for line in text.splitlines() if not line.startswith("SSLStaplingCache"))
        on.server.config.write_text(bare)
        assert "Syntax OK" in on.server.test().stderr
        on.site.renew()
        refused = on.deploy()
        assert (refused.status, refused.json["cause"]) == (4, "server.cache-missing"), refused.out
        assert on.live.readlink() == before
        assert on.site.run("check", NAME).status == 0  # it goes on serving
        on.server.config.write_text(text)
        assert on.deploy().status == 0


def test_apache_passes_on_neither_errors_nor_a_try_later_of_its_own(tmp_path: Path) -> None:
    with guarded(APACHE, tmp_path) as on:
        on.open()
        on.configure("", "[responder]\npatience = 0\n")
        new = on.site.renew()
        on.site.responder.set_mode_for(new.certificate.serial_number, Mode.TRY_LATER)
        ended = on.deploy()
        assert (ended.status, ended.json["cause"]) == (3, "ocsp.try-later"), ended.out
        assert ended.json["endpoints"][0]["staple"] is None
        assert "SSLStaplingFakeTryLater off" in (on.live / "apache.conf").read_text()


def test_lighttpd_that_gave_up_root_is_not_ended_by_a_reload(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be given up")
    with guarded(LIGHTTPD, tmp_path) as on:
        old = on.open()
        on.server.stop()
        on.server.write(on.line, 'server.username = "www-data"\nserver.groupname = "www-data"')
        # What it opens when it has given up root already; the directory is root's alone.
        text = re.sub(r"server\.(errorlog|pid-file) = .*\n", "", on.server.config.read_text())
        on.server.config.write_text(re.sub(r'document-root = ".*"', 'document-root = "/"', text))
        on.server.start()
        on.site.renew()
        ended = on.deploy()
        assert (ended.status, ended.json["cause"]) == (5, "server.reload-not-taken"), ended.out
        assert "given up root" in ended.out
        assert ended.json["endpoints"][0]["leaf_sha256"] == digest(old)
        assert on.server.accepts()


def test_any_other_server_is_tested_and_reloaded_by_its_commands(tmp_path: Path) -> None:
    with guarded(LIGHTTPD, tmp_path) as on:
        on.open()  # lighttpd plays the server that nobody knows
        staple, marks = tmp_path / "staple.der", tmp_path / "marks"
        script = f"from pathlib import Path; Path({str(marks)!r}).open('a').write('x')"
        commands = (
            f"[server.mine]\nlineages = ['{NAME}']\ntest = ['/bin/true']\nstaple_file = '{staple}'\n"
            f'reload = ["{sys.executable}", "-c", "{script}"]\n'
        )
        on.configure("", commands)
        on.site.renew()
        ended = on.deploy()
        assert ended.status == 0, ended.out + ended.err
        assert marks.read_text() == "x"
        assert staple.read_bytes() == (on.live / "ocsp.der").read_bytes()
        before = on.live.readlink()
        on.configure("", commands.replace("/bin/true", "/bin/false"))
        on.site.renew()
        refused = on.deploy()
        assert (refused.status, refused.json["cause"]) == (4, "server.config-invalid"), refused.out
        assert (on.live.readlink(), marks.read_text()) == (before, "x")


def test_two_servers_use_one_lineage_and_both_are_proved(tmp_path: Path) -> None:
    with guarded(HAPROXY, tmp_path) as on:
        on.open()
        home = tmp_path / "second"
        home.mkdir()
        second = Server(LIGHTTPD, LIGHTTPD.find() or "", home, free_port(), "")
        second.write(LIGHTTPD.line(on.live))
        second.start()
        try:
            on.configure("", f'[lighttpd]\nconfig = "{second.config}"\n')
            new = on.site.renew()
            ended = on.deploy()
            assert ended.status == 0, ended.out + ended.err
            ports = {one["port"]: one["leaf_sha256"] for one in ended.json["endpoints"]}
            assert ports == {on.server.port: digest(new), second.port: digest(new)}
        finally:
            second.stop()
        stopped = on.deploy().json
        assert stopped["verdict"] == "verified"
        assert [one["subject"] for one in stopped["findings"]] == [str(second.config)]
