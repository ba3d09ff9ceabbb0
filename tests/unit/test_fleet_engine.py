"""Many things side by side: each alone, whichever comes first, and a bug of one costs no other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from looked import good, result
from stapleguard.config import Config
from stapleguard.diagnosis import Result
from stapleguard.disk import StateDirectory
from stapleguard.engine.fleet import each, look
from stapleguard.engine.world import World
from stapleguard.finding import Code
from stapleguard.host import SystemClock
from stapleguard.inventory import Place
from stapleguard.model import KeyType, Verdict
from stapleguard.wire.trust import Anchors

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


@pytest.mark.parametrize(
    "place", [Place("127.0.0.1", 25, starttls="smtp"), Place("127.0.0.1", 443, key_types=(KeyType.RSA,))]
)
def test_what_this_version_does_not_speak_is_said_and_not_guessed(place: Place, tmp_path: Path) -> None:
    world = World(SystemClock(), Config(), StateDirectory(tmp_path), Anchors("", ()), lambda _step: None, 0.0)
    told = look(world, place, 1)
    assert (told.verdict, told.cause) == (Verdict.INCONCLUSIVE, Code.SERVED_UNREACHABLE)
    assert "this version does not ask for" in told.findings[0].message
    dead = look(world, Place("127.0.0.1", 1), 1)
    assert "ECONNREFUSED" in dead.findings[0].message
