"""Every worker of a real nginx is met: the one that has no staple is always found, a good one never blamed.

`make workers` runs 200 trials of each kind; a few of them run with every test.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab.tools import require
from real_nginx import until
from stapleguard.config import Config
from stapleguard.diagnosis import Method, Result
from stapleguard.disk import StateDirectory
from stapleguard.engine.look import check_place
from stapleguard.engine.world import World
from stapleguard.finding import Code
from stapleguard.host import SystemClock
from stapleguard.inventory import Place
from stapleguard.model import Verdict
from stapleguard.rehearsal.authority import Authority, LeafOptions
from stapleguard.rehearsal.resolver import Resolver
from stapleguard.rehearsal.responder import Mode, Responder
from stapleguard.rehearsal.webserver import Nginx, find_nginx, free_port
from stapleguard.servers import Instance, nginx
from stapleguard.wire.trust import Anchors

pytestmark = pytest.mark.server

NAME = "www.workers.test"
TRIALS = int(os.environ.get("STAPLEGUARD_COVERAGE_TRIALS", "3"))
# A bare worker has refused its staple thrice by then; a healthy one is waited for far longer.
IMPATIENT, PATIENT = 0.15, 20.0


class Workers:
    """A real nginx whose workers fetch their own staples, each for itself."""

    def __init__(self, count: int, server: Nginx, responder: Responder, authority: Authority) -> None:
        self.count = count
        self.server = server
        self.responder = responder
        self.authority = authority
        self.port = 0

    def serve(self, directory: Path, resolver: Resolver, listen: str) -> None:
        issued = self.authority.issue([NAME], datetime.now(UTC), LeafOptions(ocsp_url=self.responder.url))
        issued.write_lineage(directory / "acme", NAME, 1)
        lineage, self.port = directory / "acme" / "live" / NAME, free_port()
        self.server.write_config(
            f"resolver {resolver.address} ipv6=off; resolver_timeout 5s;"
            f"server {{ listen 127.0.0.1:{self.port} ssl {listen}; server_name {NAME};"
            f' ssl_certificate "{lineage}/fullchain.pem"; ssl_certificate_key "{lineage}/privkey.pem";'
            " ssl_protocols TLSv1.2 TLSv1.3; ssl_stapling on; return 204; }"
        )
        self.server.start(self.port)

    def pids(self) -> set[int]:
        instance = Instance("nginx", "", "", (), "", self.server.pid)
        return set(nginx.workers(instance))

    def replace(self, pid: int) -> int:
        """Kill one worker; the master starts another in its place, which has no staple yet."""
        before = self.pids()
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(self.pids() - {pid}) == self.count)
        (fresh,) = self.pids() - before
        return fresh

    def check(self, quiet: float) -> Result:
        clock = SystemClock()
        config = Config(allow_addresses=("127.0.0.0/8",), prove_quiet=quiet, prove_interval=0.01)
        anchors = Anchors("test", (self.authority.root,))
        world = World(clock, config, StateDirectory(Path("/nonexistent")), anchors, lambda _: None, 0.0)
        return check_place(world, Place("127.0.0.1", self.port, NAME), 60.0)


@contextmanager
def workers(directory: Path, count: int, listen: str) -> Iterator[Workers]:
    require("nginx")
    binary = find_nginx()
    assert binary is not None
    authority = Authority.create(datetime.now(UTC))
    (directory / "nginx").mkdir(mode=0o700)
    with (
        Responder(authority, lambda: datetime.now(UTC)) as responder,
        Resolver({"localhost": ["127.0.0.1"]}) as resolver,
        Nginx(binary, directory / "nginx", count) as server,
    ):
        made = Workers(count, server, responder, authority)
        made.serve(directory, resolver, listen)
        yield made


def seen(result: Result) -> tuple[int, int, int | None, Method]:
    (strand,) = result.strands
    coverage = strand.coverage
    return coverage.seen, coverage.stapled, coverage.total, coverage.method


@pytest.mark.parametrize("listen", ["", "reuseport"], ids=["shared", "reuseport"])
@pytest.mark.parametrize("count", [1, 4, 8, 64])
def test_the_one_worker_without_a_staple_is_found_and_a_healthy_one_never_blamed(
    tmp_path: Path, count: int, listen: str
) -> None:
    chance = random.Random(7)
    with workers(tmp_path, count, listen) as site:
        assert site.check(PATIENT).verdict is Verdict.VERIFIED
        for _ in range(TRIALS):
            site.responder.set_mode(Mode.UNAUTHORIZED)
            bare = site.replace(chance.choice(sorted(site.pids())))
            result = site.check(IMPATIENT)
            assert seen(result) == (count, count - 1, count, Method.EXACT)
            assert result.verdict is Verdict.DEGRADED
            expected = Code.SERVER_WORKER_UNSTAPLED if count > 1 else Code.STAPLE_ABSENT
            assert [one.code for one in result.findings] == [expected]
            assert result.findings[0].evidence["workers_unstapled"] == 1
            site.responder.set_mode(Mode.GOOD)
            site.replace(bare)
            result = site.check(PATIENT)
            assert seen(result) == (count, count, count, Method.EXACT)
            assert (result.verdict, result.findings) == (Verdict.VERIFIED, ())
    kind = listen or "one socket"
    print(f"\n{count} workers, {kind}: found {TRIALS} of {TRIALS}, false alarms 0 of {TRIALS}")


def test_workers_that_accept_only_once_the_client_speaks(tmp_path: Path) -> None:
    # `deferred` keeps a silent connection from every worker; then the handshakes themselves are looked at.
    with workers(tmp_path, 4, "deferred") as site:
        assert seen(site.check(PATIENT)) == (4, 4, 4, Method.EXACT)
        site.responder.set_mode(Mode.UNAUTHORIZED)
        site.replace(min(site.pids()))
        result = site.check(IMPATIENT)
        assert seen(result) == (4, 3, 4, Method.EXACT)
        assert [one.code for one in result.findings] == [Code.SERVER_WORKER_UNSTAPLED]


def test_few_handshakes_are_enough_for_many_workers(tmp_path: Path) -> None:
    # One for each worker, one more for each that was cold, the versions and key types; not sixteen for each.
    with workers(tmp_path, 64, "") as site:
        site.check(PATIENT)
        result = site.check(PATIENT)
        (strand,) = result.strands
        assert result.verdict is Verdict.VERIFIED
        assert len(strand.sightings) <= 64 + 4
