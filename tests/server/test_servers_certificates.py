"""Two certificates in one server block, and certificates that nginx computes, on the real servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lab.tools import executable, require
from real_servers import APACHE, HAPROXY, HAPROXY_WHEEL, Guarded, guarded
from site_lab import NAME, Ended, Site
from stapleguard.model import KeyType
from stapleguard.rehearsal.authority import AnswerOptions, LeafOptions
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.server

RSA = "rsa.site.test"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nginx")
    made = Site(str(executable("nginx")), tmp_path)
    yield made
    made.close()


def rsa_beside(site: Site, **options: bool) -> tuple[int, str]:
    """Issue an RSA certificate beside; return its serial number and the table of a lineage with both."""
    leaf = LeafOptions(ocsp_url=site.responder.url, key_type=KeyType.RSA, **options)
    issued = site.authority.issue([NAME], datetime.now(UTC), leaf)
    issued.write_lineage(site.directory / "acme", RSA, 1)
    second = site.lineage.parent / RSA
    table = f'[lineage."{NAME}"]\nsources = ["{site.lineage}", "{second}"]\n'
    return issued.certificate.serial_number, table


def with_rsa(site: Site, **options: bool) -> str:
    return rsa_beside(site, **options)[1]


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


@dataclass
class Both:
    """HAProxy 2.6, which cannot fetch, with an ECDSA and an RSA certificate."""

    on: Guarded
    rsa: int
    """Serial number of the RSA certificate."""

    def staples(self) -> dict[str, bytes | None]:
        """The staple files that are published, by the certificate they are about."""
        paths = {"ecdsa": self.on.live / "ocsp.der", "rsa": self.on.live / "ocsp.rsa.der"}
        return {kind: path.read_bytes() if path.exists() else None for kind, path in paths.items()}

    def say(self, left: timedelta) -> None:
        """Let the responder's answers have so much life left, of a week."""
        answer = AnswerOptions(this_update=left - timedelta(days=7), next_update=left)
        self.on.site.responder.set_good(answer)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with guarded(HAPROXY, tmp_path) as on:
        on.open()
        on.site.renew()
        serial, table = rsa_beside(on.site)
        on.configure("", f"[responder]\npatience = 0\n[retry]\nfloor = 1\n{table}")
        yield Both(on, serial)


def stapled(ended: Ended) -> dict[str, bool]:
    return {one["key_type"]: one["staple"] is not None for one in ended.json["endpoints"]}


def test_haproxy_that_cannot_fetch_staples_both_from_files(both: Both) -> None:
    ended = both.on.deploy()
    assert (ended.status, ended.json["verdict"]) == (0, "verified"), ended.out + ended.err
    assert stapled(ended) == {"ecdsa": True, "rsa": True}
    assert both.staples()["rsa"] == (both.on.live / "bundle.rsa.pem.ocsp").read_bytes()


def test_of_two_certificates_the_one_without_an_answer_is_named(both: Both) -> None:
    both.on.site.responder.set_mode_for(both.rsa, Mode.TRY_LATER)
    ended = both.on.deploy()
    assert (ended.status, ended.json["cause"]) == (3, "ocsp.try-later"), ended.out
    assert stapled(ended) == {"ecdsa": True, "rsa": False}
    assert both.staples()["rsa"] is None


def test_of_two_staple_files_each_is_renewed_for_itself(both: Both) -> None:
    both.say(timedelta(days=2))
    assert both.on.deploy().status == 0
    before = both.staples()
    both.say(timedelta(days=7))
    both.on.site.responder.set_mode_for(both.rsa, Mode.TRY_LATER)
    ended = both.on.site.run("refresh", "--json")
    assert ended.status == 0, ended.out + ended.err
    after = both.staples()
    assert (after["ecdsa"] == before["ecdsa"], after["rsa"] == before["rsa"]) == (False, True)
    assert stapled(ended) == {"ecdsa": True, "rsa": True}


def test_of_two_staple_files_the_one_that_ends_is_withdrawn_alone(both: Both) -> None:
    both.say(timedelta(minutes=10))
    assert both.on.deploy().status == 0
    both.say(timedelta(days=7))
    both.on.site.responder.set_mode_for(both.rsa, Mode.TRY_LATER)
    ended = both.on.site.run("refresh", "--json")
    assert ended.status == 3, ended.out + ended.err
    assert both.staples()["rsa"] is None
    assert both.staples()["ecdsa"] is not None
    assert stapled(ended) == {"ecdsa": True, "rsa": False}


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
