"""`setup` on Debian's HAProxy as people have it: a directory of PEMs, and a crt-list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.booted import Booted
from lab.tools import require
from served import STATE, Served
from test_setup_certbot import CERTS, COPIES, HAPROXY, haproxy

pytestmark = pytest.mark.systemd


@pytest.fixture(scope="module")
def made(box: Booted) -> Iterator[Served]:
    require("haproxy-unit")
    box.run("systemctl", "stop", "nginx")
    with Served(box) as one:
        yield one


@pytest.fixture
def site(made: Served) -> Iterator[Served]:
    yield made
    made.stapleguard("setup", "--undo")
    made.box.run("rm", "-rf", STATE, CERTS, "/etc/letsencrypt/live").succeeded()


def lineages(site: Served, *names: str) -> None:
    for name in names:
        site.renew(name)
    site.box.write("/usr/local/sbin/copies", COPIES, 0o755)
    site.box.run("/usr/local/sbin/copies").succeeded()


def test_a_directory_of_certificates(box: Booted, site: Served) -> None:
    """Every name goes on to get its certificate, and who names none gets the first one as before."""
    first, second, foreign = "a.site.test", "b.site.test", "foreign.site.test"
    lineages(site, first, foreign, second)
    box.run("rm", "-r", f"/etc/letsencrypt/live/{foreign}").succeeded()
    haproxy(box, f"crt {CERTS}/")
    before = {name: site.look(name).leaf for name in (first, second, foreign, "nobody.test")}
    seen = site.stapleguard("setup", "--json").json
    assert {one["name"]: one["mode"] for one in seen["lineages"]} == {first: "check", second: "check"}

    done = site.stapleguard("setup", "--write", "--yes", "--json")
    assert done.json["verdicts"] == {first: "verified", second: "verified"}, done.stderr
    lists = " ".join(f"crt-list {STATE}/live/{name}/haproxy.crtlist" for name in (first, second))
    assert f"ssl {lists} crt {CERTS}/ alpn" in box.path_in(HAPROXY).read_text()
    assert {name: site.look(name).leaf for name in before} == before
    new = site.renew(first)
    assert site.stapleguard("deploy", f"/etc/letsencrypt/live/{first}").status == 0
    after = {name: site.look(name).leaf for name in before}
    assert after == before | {first: new.certificate, "nobody.test": new.certificate}


def test_a_directory_that_begins_with_another_certificate(box: Booted, site: Served) -> None:
    foreign, ours = "a.site.test", "b.site.test"
    lineages(site, foreign, ours)
    box.run("rm", "-r", f"/etc/letsencrypt/live/{foreign}").succeeded()
    haproxy(box, f"crt {CERTS}/")
    text = box.path_in(HAPROXY).read_text()
    done = site.stapleguard("setup", "--write", "--yes", "--json")
    assert any(f"move {CERTS}/{ours}.pem out of it" in one for one in done.json["by_hand"]), done.json
    assert box.path_in(HAPROXY).read_text() == text


def test_a_list_of_certificates(box: Booted, site: Served) -> None:
    first, second = "a.site.test", "b.site.test"
    lineages(site, first, second)
    listed = f"{CERTS}/{first}.pem\n{CERTS}/{second}.pem [alpn h2] {second}\n# the end\n"
    box.write("/etc/haproxy/crt-list.txt", listed)
    haproxy(box, "crt-list /etc/haproxy/crt-list.txt")
    site.renew(first)
    (told,) = site.stapleguard("setup", "--json").json["by_hand"]
    assert f"{CERTS}/{first}.pem" in told
    assert f"is not the certificate that {first} has now" in told
    box.run("/usr/local/sbin/copies").succeeded()
    done = site.stapleguard("setup", "--write", "--yes", "--json")
    assert done.json["verdicts"] == {first: "verified", second: "verified"}, done.stderr
    assert box.path_in("/etc/haproxy/crt-list.txt").read_text() == (
        f"{STATE}/live/{first}/bundle.pem\n{STATE}/live/{second}/bundle.pem [alpn h2] {second}\n# the end\n"
    )
    new = site.renew(second)
    assert site.stapleguard("deploy", f"/etc/letsencrypt/live/{second}").status == 0
    assert site.look(second).leaf == new.certificate
    assert site.stapleguard("setup", "--json").json["changes"] == []
    site.stapleguard("setup", "--undo").succeeded()
    assert box.path_in("/etc/haproxy/crt-list.txt").read_text() == listed
