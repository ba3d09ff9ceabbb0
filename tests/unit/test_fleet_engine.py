"""Many things side by side: each alone, whichever comes first, and a bug of one costs no other."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from looked import good, result
from stapleguard.config import Config
from stapleguard.diagnosis import Result
from stapleguard.disk import StateDirectory
from stapleguard.engine.fleet import each
from stapleguard.engine.look import check_quickly, look
from stapleguard.engine.world import World
from stapleguard.finding import Code
from stapleguard.host import SystemClock
from stapleguard.inventory import Place
from stapleguard.model import Depth, KeyType, StartTls, Verdict
from stapleguard.wire.trust import Anchors
from test_wire_handshake import AUTHORITY, ECDSA, RSA, listening, silent, tls
from test_wire_starttls import GOOD, scripted

pytestmark = pytest.mark.unit


def test_everything_comes_once_however_few_are_looked_at_together() -> None:
    met = [thing for thing, _ in each(range(100), lambda _: result(good()), at_once=3)]
    assert sorted(met) == [*range(100)]
    assert [*each([], lambda _: result(good()))] == []


def test_what_stalls_comes_last() -> None:
    over = threading.Event()

    def look_at(thing: int) -> Result:
        if thing == 0:
            over.wait(10)
        return result(good())

    coming = each(range(3), look_at, at_once=2)
    assert sorted(next(coming)[0] for _ in range(2)) == [1, 2]
    over.set()
    assert [thing for thing, _ in coming] == [0]


def test_whoever_stops_listening_is_not_held_up() -> None:
    coming = each(range(1000), lambda _: result(good()), at_once=2)
    next(coming)
    coming.close()  # type: ignore[attr-defined]  # a generator


def test_a_bug_becomes_a_finding_of_the_one_that_met_it() -> None:
    def look_at(thing: str) -> Result:
        if thing == "bad":
            raise ZeroDivisionError("by\x1bzero")
        return result(good())

    ended = dict(each(["good", "bad"], look_at))
    assert (ended["good"].verdict, ended["bad"].verdict) == (Verdict.VERIFIED, Verdict.INCONCLUSIVE)
    assert ended["bad"].cause is Code.HOST_INTERNAL
    assert ended["bad"].findings[0].message == "looking at bad failed: ZeroDivisionError: by\\x1bzero"


def world(tmp_path: Path) -> World:
    anchors = Anchors("test", (AUTHORITY.root,))
    return World(SystemClock(), Config(), StateDirectory(tmp_path), anchors, lambda _step: None, 0.0)


@pytest.mark.parametrize("depth", Depth)
def test_a_place_is_looked_at_with_its_protocol_and_key_types(tmp_path: Path, depth: Depth) -> None:
    with listening(scripted(GOOD[StartTls.SMTP])) as mail, listening(tls(RSA, ECDSA)) as port:
        place = Place("127.0.0.1", mail, "mail.test", starttls="smtp")
        told = look(world(tmp_path), place, 10, depth)
        (strand,) = told.strands
        assert strand.last is not None
        assert strand.last.leaf is not None
        assert strand.last.leaf.names == ("mail.test",)
        both = Place("127.0.0.1", port, "example.test", key_types=(KeyType.RSA, KeyType.ECDSA))
        told = look(world(tmp_path), both, 10, depth)
        assert {one.key_type for one in told.strands} == {KeyType.RSA, KeyType.ECDSA}


@pytest.mark.parametrize("depth", Depth)
def test_a_place_that_is_not_there_is_inconclusive(tmp_path: Path, depth: Depth) -> None:
    dead = look(world(tmp_path), Place("127.0.0.1", 1), 1, depth)
    assert (dead.verdict, dead.cause) == (Verdict.INCONCLUSIVE, Code.SERVED_UNREACHABLE)
    assert "ECONNREFUSED" in dead.findings[0].message
    nowhere = look(world(tmp_path), Place("a..b", 1), 1, depth)
    assert (nowhere.verdict, nowhere.cause) == (Verdict.INCONCLUSIVE, Code.DNS_NAME_NOT_FOUND)


@pytest.mark.parametrize("asked", ["example.test", "", None])
def test_the_server_name_is_the_one_of_the_place(tmp_path: Path, asked: str | None) -> None:
    names: list[bytes | None] = []
    with listening(tls(ECDSA, names=names)) as port:
        look(world(tmp_path), Place("localhost", port, asked, ("127.0.0.1",)), 10, Depth.QUICK)
    assert names == [None if asked is None else (asked or "localhost").encode()]


def test_results_of_a_sweep_come_as_they_end_and_each_once(tmp_path: Path) -> None:
    with listening(silent) as bad, listening(tls(ECDSA)) as port:
        ports = [bad, *[port] * 20, 1]
        places = [*(Place("127.0.0.1", one, "example.test") for one in ports), Place("a..b", 443)]
        coming = check_quickly(world(tmp_path), places)
        seen = [next(coming) for _ in range(len(places) - 1)]
        coming.close()  # type: ignore[attr-defined]  # a generator
    assert {number for number, _ in seen} == {*range(1, len(places))}
    good = [told.verdict for number, told in seen if number <= 20]
    assert good == [Verdict.NOT_APPLICABLE] * 20


def test_a_bug_in_a_sweep_costs_the_others_nothing(tmp_path: Path) -> None:
    broken = replace(world(tmp_path), clock=Broken())
    with listening(tls(ECDSA)) as port:
        told = dict(check_quickly(broken, [Place("127.0.0.1", port, "example.test")] * 2))
    assert [told[number].cause for number in range(2)] == [Code.HOST_INTERNAL] * 2


class Broken(SystemClock):
    """A clock that fails when the judge asks for the time, not when the observation is dated."""

    def now(self) -> datetime:
        if any(frame.function == "sight" for frame in inspect.stack()):
            raise ZeroDivisionError
        return super().now()
