"""Two certificates in one server block, and certificates that nginx computes, on the real servers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab.tools import executable, require
from real_servers import APACHE, HAPROXY, HAPROXY_WHEEL, Guarded, guarded
from site_lab import NAME, Site
from stapleguard.model import KeyType
from stapleguard.rehearsal.authority import LeafOptions

pytestmark = pytest.mark.server

RSA = "rsa.site.test"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nginx")
    made = Site(str(executable("nginx")), tmp_path)
    yield made
    made.close()


def with_rsa(site: Site, number: int = 1, **options: bool) -> str:
    """Issue an RSA certificate beside; return the table of a lineage with both."""
    leaf = LeafOptions(ocsp_url=site.responder.url, key_type=KeyType.RSA, **options)
    site.authority.issue([NAME], datetime.now(UTC), leaf).write_lineage(site.directory / "acme", RSA, number)
    second = site.lineage.parent / RSA
    return f'[lineage."{NAME}"]\nsources = ["{site.lineage}", "{second}"]\n'


@pytest.mark.parametrize("prime", ["auto", "file"])
def test_nginx_fetches_for_both_because_one_file_would_be_wrong_for_one(site: Site, prime: str) -> None:
    site.open()
    site.renew(must_staple=True)
    site.configure(f'prime = "{prime}"', with_rsa(site, must_staple=True))
    ended = site.deploy()
    assert (ended.status, ended.json["verdict"]) == (0, "verified"), ended.out + ended.err
    kinds = {one["key_type"]: one["workers"]["stapled"] for one in ended.json["endpoints"]}
    assert kinds == {"ecdsa": 4, "rsa": 4}
    assert "one file for both certificates" in ended.err
    include = (site.state / "live" / NAME / "nginx.conf").read_text()
    assert ("ssl_stapling on" in include, "ssl_stapling_file" in include) == (True, False)


def test_nginx_takes_the_file_where_there_is_one_certificate(site: Site) -> None:
    """The twin: the same certificate alone is primed from a file."""
    site.open()
    site.renew(must_staple=True)
    assert site.deploy().status == 0
    assert "ssl_stapling_file" in (site.state / "live" / NAME / "nginx.conf").read_text()


@pytest.fixture(params=[APACHE, HAPROXY_WHEEL], ids=["apache", "haproxy-wheel"])
def fetching(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(request.param, tmp_path) as made:
        yield made


def test_a_server_that_fetches_staples_both(fetching: Guarded) -> None:
    on = fetching
    on.open()
    on.site.renew()
    on.configure("", with_rsa(on.site))
    ended = on.deploy()
    assert ended.status == 0, ended.out + ended.err
    assert {one["key_type"] for one in ended.json["endpoints"]} == {"ecdsa", "rsa"}
    assert all(one["staple"]["status"] == "good" for one in ended.json["endpoints"])


def test_haproxy_that_cannot_fetch_says_that_it_has_no_staple_for_both(tmp_path: Path) -> None:
    with guarded(HAPROXY, tmp_path) as on:
        on.open()
        on.site.renew()
        on.configure("", f"[responder]\npatience = 0\n{with_rsa(on.site)}")
        ended = on.deploy()
        assert (ended.status, ended.json["cause"]) == (3, "server.stapling-disabled"), ended.out


def test_nginx_with_a_certificate_by_variable_is_named(site: Site) -> None:
    issued = site.renew()
    where = f"listen 127.0.0.1:{site.port} ssl; server_name {NAME}"
    files = f"ssl_certificate {site.lineage}/$file.pem; ssl_certificate_key {site.lineage}/privkey.pem"
    site.nginx.write_config(
        f"map $ssl_server_name $file {{ default fullchain; }}\n"
        f"server {{ {where}; {files}; ssl_stapling on; return 204; }}"
    )
    site.nginx.start(site.port)
    site.configure("", "[responder]\npatience = 0\n")
    ended = site.deploy()
    assert (ended.status, ended.json["cause"]) == (3, "server.variable-certificate"), ended.out
    assert ended.json["endpoints"][0]["workers"]["stapled"] == 0
    assert issued.certificate.serial_number
