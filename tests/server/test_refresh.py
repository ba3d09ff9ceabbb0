"""Staple files that live for seconds, refreshed under load; withdrawn in time when nothing comes."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest
from cryptography import x509
from lab.tools import executable, require
from site_lab import NAME, Site
from stapleguard.model import Ask, Endpoint
from stapleguard.ocsp import Acceptance, Judgement, judge
from stapleguard.rehearsal.authority import AnswerOptions, Authority
from stapleguard.rehearsal.responder import Mode
from stapleguard.wire.handshake import Limits, observe

pytestmark = pytest.mark.server

SECONDS = float(os.environ.get("STAPLEGUARD_REFRESH_SECONDS", "0"))
LIFE = timedelta(seconds=60 if SECONDS else 20)  # at the least
CLIENTS = 8 if SECONDS else 2
PERIOD = 1.0  # of the timer: a run, and so long until the next


@dataclass
class Seen:
    """What clients saw, each handshake full; a staple is judged at the moment of its handshake."""

    issuer: x509.Certificate
    port: int
    stop: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)
    total: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    staples: dict[bytes, Judgement] = field(default_factory=dict)
    least: timedelta = timedelta(days=1)

    def client(self) -> None:
        ask = Ask(Endpoint(NAME, self.port, NAME, "127.0.0.1"))
        while not self.stop.is_set():
            (seen,) = observe([ask], Limits(), now=lambda: datetime.now(UTC))
            with self.lock:
                self.total += 1
                if seen.fault is not None:
                    self.bad[f"failed: {seen.fault.value} {seen.detail}"] += 1
                elif seen.staple is None:
                    self.bad["bare"] += 1
                else:
                    self._judge(seen.chain[0], seen.staple, seen.at)

    def _judge(self, leaf: bytes, staple: bytes, at: datetime) -> None:
        if staple not in self.staples:
            self.staples[staple] = judge(staple, x509.load_der_x509_certificate(leaf), self.issuer, at)
        judgement = self.staples[staple]
        if judgement.acceptance is not Acceptance.ACCEPTED or judgement.next_update is None:
            self.bad["not acceptable"] += 1
        elif at >= judgement.next_update:
            self.bad["expired"] += 1
        else:
            self.least = min(self.least, judgement.next_update - at)

    def summary(self) -> str:
        least = f"{self.least.total_seconds():.1f} s left at the least"
        return f"{self.total} handshakes, {len(self.staples)} staples, {least}, bad: {dict(self.bad) or 0}"


@contextmanager
def clients_of(site: Site) -> Iterator[Seen]:
    seen = Seen(site.authority.intermediate, site.port)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(seen.client) for _ in range(CLIENTS)]
        try:
            yield seen
        finally:
            seen.stop.set()
            for one in clients:
                one.result(timeout=30)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("nginx")
    made = Site(str(executable("nginx")), tmp_path_factory.mktemp("site"))
    # What has failed is due again at once, however quick this machine is: the back-off has its own tests.
    made.configure('prime = "file"', "[retry]\nfloor = 0.001\ncap = 0.001\n")
    yield made
    made.close()


@pytest.fixture(scope="module")
def life(opened: Site) -> timedelta:
    """How long an answer has to live so that a run of this machine, as busy as it is, fits into it."""
    begun = monotonic()
    opened.open()  # two runs
    return LIFE if SECONDS else max(LIFE, timedelta(seconds=5 * (monotonic() - begun)))


@pytest.fixture
def site(opened: Site, life: timedelta) -> Site:
    opened.responder.set_mode(Mode.GOOD)
    opened.responder.set_good(AnswerOptions())
    return opened


def primed(site: Site, answer: AnswerOptions, **options: Any) -> None:
    """Serve a new certificate with this answer as its staple file."""
    site.responder.set_good(answer)
    site.renew(**options)
    assert site.deploy().status == 0


def timer(site: Site, seen: Seen) -> Iterator[Any]:
    """What the timer does, again and again, with a period that fits to answers of seconds."""
    while not seen.stop.wait(PERIOD):
        yield site.run("refresh", "--json").json


def test_no_client_meets_an_expired_missing_or_bad_staple(site: Site, life: timedelta) -> None:
    primed(site, AnswerOptions(this_update=timedelta(), next_update=life))
    with clients_of(site) as seen:
        begun, wanted = monotonic(), 2
        for told in timer(site, seen):
            assert told["verdict"] == "verified", told
            over = monotonic() - begun
            if over >= SECONDS and len(seen.staples) >= wanted:
                break
            assert over < max(SECONDS * 1.2, 3 * life.total_seconds()), seen.summary()
    print(f"\nrefresh: {over:.0f} s with answers of {life.total_seconds():.0f} s: {seen.summary()}")
    assert not seen.bad


def test_without_a_newer_answer_it_tells_in_time_and_withdraws_in_time(site: Site) -> None:
    live = site.state / "live" / NAME
    told: dict[str, Any] = {}
    for stage, since, left in (("half", 70, 40), ("near", 80, 20), ("end", 100, 0.2)):
        primed(site, AnswerOptions(this_update=timedelta(hours=-since), next_update=timedelta(hours=left)))
        assert "ssl_stapling_file" in (live / "nginx.conf").read_text()
        site.responder.set_mode(Mode.TRY_LATER)
        with clients_of(site) as seen:
            told[stage] = site.run("refresh", "--json").json
        site.responder.set_mode(Mode.GOOD)
        assert set(seen.bad) <= ({"bare"} if stage == "end" else set())  # never a stale one
        assert (live / "ocsp.der").exists() == (stage != "end")
    assert told["half"]["verdict"] == "pending"
    assert told["near"]["verdict"] == "degraded"
    assert {"staple.near-expiry", "ocsp.try-later"} <= {one["code"] for one in told["near"]["findings"]}
    assert "staple.near-expiry" in {one["code"] for one in told["end"]["findings"]}
    assert "ssl_stapling_file" not in (live / "nginx.conf").read_text()
    assert "ssl_stapling on" in (live / "nginx.conf").read_text()
    site.responder.set_good(AnswerOptions())
    assert site.run("retry", NAME).status == 0
    assert (live / "ocsp.der").exists()


def test_a_young_staple_is_left_alone(site: Site) -> None:
    primed(site, AnswerOptions())
    before, asked = site.live(), len(site.responder.hits)
    told = site.run("refresh", "--json")
    assert (told.status, told.json["refreshed"]) == (0, [])
    assert (site.live(), len(site.responder.hits)) == (before, asked)


def test_a_responder_that_is_down_takes_no_good_staple_away(site: Site) -> None:
    primed(site, past_half())
    before = site.live()
    site.responder.set_mode(Mode.TRY_LATER)
    assert site.deploy().json["verdict"] == "verified"
    assert site.live() == before
    site.responder.set_mode(Mode.GOOD)
    site.responder.set_good(AnswerOptions())
    assert site.run("refresh").status == 0
    assert site.live() != before


def past_half(hours: int = 0) -> AnswerOptions:
    """An answer whose time to be renewed has come, with a later end for each of `hours`."""
    return AnswerOptions(this_update=timedelta(hours=-70), next_update=timedelta(hours=40 + hours))


def test_staples_do_not_push_earlier_certificates_out(site: Site) -> None:
    first = Path(site.live()).name
    primed(site, past_half())
    for hours in range(1, 5):  # six generations by now, of which five are kept
        site.responder.set_good(past_half(hours))
        assert len(site.run("refresh", "--json").json["refreshed"]) == 1
    kept = [one.name for one in (site.state / "generations" / NAME).iterdir()]
    assert first in kept
    assert len(kept) <= 4


def test_one_lineage_that_cannot_be_written_is_said_and_the_file_stays(site: Site) -> None:
    require("mount-namespace")
    primed(site, past_half())
    site.responder.set_good(AnswerOptions())
    before = site.live()
    blocked = site.state / "generations" / NAME
    kept = blocked.with_name("elsewhere")
    blocked.rename(kept)  # root is stopped by no mode: a mount that cannot be written is
    blocked.mkdir()
    subprocess.run(["mount", "--bind", "-o", "ro", kept, blocked], check=True)
    try:
        told = site.run("refresh", "--json")
    finally:
        subprocess.run(["umount", blocked], check=True)
        blocked.rmdir()
        kept.rename(blocked)
    assert (told.status, told.json["cause"]) == (4, "host.permission")
    assert site.live() == before


class PreProduced(BaseHTTPRequestHandler):
    """A responder that hands out one answer with an ETag until it has a newer one (RFC 5019 section 6)."""

    answer = AnswerOptions()
    made: ClassVar[dict[AnswerOptions, bytes]] = {}
    asked: ClassVar[list[str | None]] = []
    authority: Authority

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        request = base64.b64decode(unquote(self.path.lstrip("/")))
        if self.answer not in self.made:
            self.made[self.answer] = self.authority.answer(request, datetime.now(UTC), self.answer)
        body = self.made[self.answer]
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        given = self.headers.get("If-None-Match")
        self.asked.append(given)
        if given == tag:
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)


def test_a_responder_is_asked_for_what_is_newer_only(site: Site) -> None:
    PreProduced.authority = site.authority
    with ThreadingHTTPServer(("127.0.0.1", 0), PreProduced) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            PreProduced.answer = past_half()
            site.renew(ocsp_url=f"http://127.0.0.1:{server.server_port}/")
            assert site.deploy().status == 0
            PreProduced.answer = past_half(1)
            assert site.run("refresh", "--json").json["refreshed"][0]["verdict"] == "verified"
            before, asked = site.live(), len(PreProduced.asked)
            told = site.run("refresh", "--json").json
            assert (told["verdict"], told["findings"]) == ("pending", [])
            assert [bool(one) for one in PreProduced.asked[asked:]] == [True]  # one question, on condition
            assert site.live() == before
        finally:
            server.shutdown()
            thread.join()
