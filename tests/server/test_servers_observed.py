"""Servers that are only looked at: what they cannot do is named, and is no alarm where nothing is owed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab.tools import executable, require
from real_nginx import free_port, until
from real_servers import APACHE, guarded
from site_lab import NAME, Site
from stapleguard.diagnosis.observed import Ability, observed

pytestmark = pytest.mark.server


@contextmanager
def stunnel(site: Site) -> Iterator[int]:
    port, config = free_port(), site.directory / "stunnel.conf"
    config.write_text(
        f"foreground = yes\npid =\n[site]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:9\n"
        f"cert = {site.lineage}/fullchain.pem\nkey = {site.lineage}/privkey.pem\n"
    )
    with (site.directory / "stunnel.log").open("ab") as log:
        argv = ["setpriv", "--pdeathsig", "TERM", str(executable("stunnel4")), str(config)]
        child = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        until(lambda: "Configuration successful" in (site.directory / "stunnel.log").read_text())
        yield port
    finally:
        child.terminate()
        child.wait(10)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("stunnel4", "nginx")
    made = Site(str(executable("nginx")), tmp_path)
    made.nginx.write_config("")
    yield made
    made.close()


def looked(site: Site, port: int) -> Any:
    return site.run("check", f"127.0.0.1:{port}", "--sni", NAME, "--json").json


def test_stunnel_cannot_staple_and_that_is_critical_only_for_must_staple(site: Site) -> None:
    for must_staple, severity in ((False, "warning"), (True, "critical")):
        site.renew(must_staple=must_staple)
        with stunnel(site) as port:
            told = looked(site, port)
        assert (told["verdict"], told["cause"]) == ("degraded", "server.unsupported"), told
        (found,) = [one for one in told["findings"] if one["code"] == "server.unsupported"]
        assert found["severity"] == severity


def test_stunnel_is_no_trouble_where_no_staple_is_owed(site: Site) -> None:
    site.renew(ocsp_url=None)
    with stunnel(site) as port:
        told = looked(site, port)
    assert told["verdict"] == "not-applicable"
    assert "server.unsupported" not in [one["code"] for one in told["findings"]]


def test_a_server_that_can_staple_is_never_called_unsupported(tmp_path: Path) -> None:
    with guarded(APACHE, tmp_path) as on:
        on.open()
        assert looked(on.site, on.server.port)["cause"] is None


@pytest.mark.parametrize(
    ("program", "ability"),
    [
        ("/usr/bin/caddy", Ability.FETCHES),
        ("/usr/sbin/exim4", Ability.FILE),
        ("/usr/lib/postfix/sbin/master", Ability.NOTHING),
        ("/usr/sbin/dovecot", Ability.NOTHING),
    ],
)
def test_what_is_known_of_the_programs_that_are_only_looked_at(program: str, ability: Ability) -> None:
    known = observed(program)
    assert known is not None
    assert known.ability is ability
    assert observed("/opt/other/sbin/master") is None
