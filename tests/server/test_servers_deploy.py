"""Issue, renew, prime, prove, refresh and roll back on Apache, HAProxy and lighttpd, each with its twin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from real_servers import HAPROXY, RECIPES, Guarded, guarded
from site_lab import NAME
from stapleguard.rehearsal.authority import Issued

pytestmark = pytest.mark.server


@pytest.fixture(params=RECIPES)
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def on_haproxy(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(HAPROXY, tmp_path) as made:
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
    assert endpoint["workers"]["seen"] == endpoint["workers"]["total"]
    back = on.site.run("rollback", NAME, "--json")
    assert (back.status, back.json["verdict"]) == (5, "rolled-back"), back.out + back.err
    assert back.json["endpoints"][0]["leaf_sha256"] == digest(old)


def test_a_stopped_server_keeps_the_old_generation(on: Guarded) -> None:
    on.open()
    before = on.live.readlink()
    on.server.stop()
    on.site.renew()
    ended = on.deploy()
    assert (ended.status, ended.json["cause"], on.live.readlink()) == (7, "server.not-running", before)


def test_a_configuration_that_was_broken_before_is_refused(on: Guarded) -> None:
    on.open()
    before = on.live.readlink()
    on.server.config.write_text(on.server.config.read_text() + "\n}nonsense on\n")
    on.site.renew()
    ended = on.deploy()
    assert (ended.status, ended.json["cause"], on.live.readlink()) == (4, "server.config-invalid", before)
