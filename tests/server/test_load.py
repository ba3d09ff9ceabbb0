"""Renewals while clients never stop: what eight of them saw, each handshake full and asking for a staple."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Condition, Event
from time import monotonic

import pytest
from cryptography import x509
from lab.tools import require
from site_lab import NAME, Site
from stapleguard.model import Ask, Endpoint, Observation
from stapleguard.ocsp import Acceptance, judge
from stapleguard.rehearsal.authority import AnswerOptions
from stapleguard.rehearsal.webserver import find_nginx
from stapleguard.wire.handshake import Limits, observe

pytestmark = pytest.mark.server

RENEWALS = int(os.environ.get("STAPLEGUARD_LOAD_RENEWALS", "2"))
CLIENTS = 8
SETTLED = 200  # handshakes in a row, so that each of four workers had its share
PATIENCE = 30.0


@dataclass
class Load:
    """What the clients saw so far; the lock is the condition's."""

    issuer: x509.Certificate
    port: int
    stop: Event = field(default_factory=Event)
    changed: Condition = field(default_factory=Condition)
    total: int = 0
    bare: int = 0
    stapled_in_a_row: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    leaves: Counter[bytes] = field(default_factory=Counter)
    judged: dict[tuple[bytes, bytes], str] = field(default_factory=dict)

    def client(self) -> None:
        ask = Ask(Endpoint(NAME, self.port, NAME, "127.0.0.1"))
        while not self.stop.is_set():
            (seen,) = observe([ask], Limits(), now=lambda: datetime.now(UTC))
            with self.changed:
                self._count(seen)
                self.changed.notify_all()

    def _count(self, seen: Observation) -> None:
        self.total += 1
        self.stapled_in_a_row += 1
        if seen.fault is not None:
            self.failed[f"{seen.fault.value}: {seen.detail}"] += 1
            self.stapled_in_a_row = 0
            return
        self.leaves[seen.chain[0]] += 1
        if seen.staple is None:
            self.bare += 1
            self.stapled_in_a_row = 0
        elif why := self._fault_of(seen.chain[0], seen.staple, seen.at):
            self.refused[why] += 1
            self.stapled_in_a_row = 0

    def _fault_of(self, leaf: bytes, staple: bytes, now: datetime) -> str:
        # The same bytes come thousands of times, within minutes: judged once.
        if (leaf, staple) not in self.judged:
            judgement = judge(staple, x509.load_der_x509_certificate(leaf), self.issuer, now)
            why = "; ".join(found.message for found in judgement.findings) or "no reason given"
            self.judged[leaf, staple] = "" if judgement.acceptance is Acceptance.ACCEPTED else why
        return self.judged[leaf, staple]

    def wait_for(self, what: Callable[[], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(what, PATIENCE)

    def settle(self) -> bool:
        """Wait for SETTLED more handshakes, all of them with a staple that is accepted."""
        with self.changed:
            self.stapled_in_a_row = 0
        return self.wait_for(lambda: self.stapled_in_a_row >= SETTLED)

    def summary(self) -> str:
        failed, refused = self.failed.total(), self.refused.total()
        return f"{self.total} handshakes, {failed} failed, {self.bare} bare, {refused} with a staple refused"


@contextmanager
def load_on(site: Site, count: int = CLIENTS) -> Iterator[Load]:
    load = Load(site.authority.intermediate, site.port)
    with ThreadPoolExecutor(count) as pool:
        clients: list[Future[None]] = [pool.submit(load.client) for _ in range(count)]
        try:
            yield load
        finally:
            load.stop.set()
            # A client that broke is the reason for whatever else went wrong.
            for one in clients:
                one.result(timeout=PATIENCE)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nginx")
    binary = find_nginx()
    assert binary is not None
    made = Site(binary, tmp_path)
    yield made
    made.close()


def renew_under(load: Load, site: Site) -> float:
    """Renew RENEWALS times, each seen by the clients before the next; return the seconds it took."""
    begun = monotonic()
    for _ in range(RENEWALS):
        site.renew()
        ended = site.deploy()
        assert (ended.status, ended.json["verdict"]) == (0, "verified"), ended.out + ended.err
        assert load.settle(), load.summary()
    return monotonic() - begun


def back_and_forth(load: Load, site: Site) -> None:
    """Roll the last renewal back, and renew the staple of one more: each seen by the clients as well."""
    ended = site.run("rollback", NAME, "--json")
    assert (ended.status, ended.json["verdict"]) == (5, "rolled-back"), ended.out + ended.err
    before = Counter(load.leaves)
    assert load.settle(), load.summary()
    assert [sha256(leaf).hexdigest() for leaf in load.leaves - before] == [ended.json["after"]]
    # Past half of its life at once, so that it is due; a server that fetches for itself has no file of ours.
    site.responder.set_good(AnswerOptions(this_update=-timedelta(hours=70), next_update=timedelta(hours=40)))
    site.renew()
    assert site.deploy().status == 0
    assert load.settle(), load.summary()
    site.responder.set_good(AnswerOptions())
    known = len(load.judged)
    refreshed = site.run("refresh", "--json")
    assert (refreshed.status, refreshed.json["verdict"]) == (0, "verified"), refreshed.out + refreshed.err
    assert load.settle(), load.summary()
    published = (site.state / "live" / NAME / "ocsp.der").exists()
    assert len(load.judged) == known + published, "the new staple did not reach the clients"


def reload_plainly(load: Load, site: Site) -> None:
    """Reload without the program, and wait until all four old workers are gone."""
    gone = "exited with code 0"
    before = site.nginx.log.read_text().count(gone)
    argv = [site.binary, *site.nginx.arguments, "-s", "reload"]
    subprocess.run(argv, capture_output=True, timeout=30, check=True)
    assert load.wait_for(lambda: site.nginx.log.read_text().count(gone) >= before + 4), load.summary()


def test_primed_from_a_file_no_client_is_failed_or_left_bare(site: Site) -> None:
    site.configure('prime = "file"')
    site.open()
    with load_on(site) as load:
        assert load.settle(), load.summary()
        seconds = renew_under(load, site)
        back_and_forth(load, site)
    print(f"\nload, prime = file: {RENEWALS} renewals in {seconds:.0f} s under load: {load.summary()}")
    assert not load.failed
    assert (load.bare, load.refused) == (0, Counter())
    assert len(load.leaves) == RENEWALS + 2


def test_primed_by_warming_none_fails_and_staples_come_back(site: Site) -> None:
    site.configure('prime = "warm"')
    site.open()
    with load_on(site) as load:
        assert load.settle(), load.summary()
        before = load.bare
        seconds = renew_under(load, site)
        warmed, begun = load.bare - before, load.bare
        for _ in range(RENEWALS):
            reload_plainly(load, site)
            assert load.settle(), load.summary()
        plain = load.bare - begun
    print(
        f"\nload, prime = warm: {RENEWALS} renewals in {seconds:.0f} s: {warmed} bare; "
        f"{RENEWALS} plain reloads: {plain} bare; together {load.summary()}"
    )
    assert not load.failed
    assert len(load.leaves) == RENEWALS + 1
