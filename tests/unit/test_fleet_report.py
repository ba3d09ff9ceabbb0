"""Readings, NDJSON, text and the screen: what many endpoints look like."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from looked import DAY, NOW, bare, endpoint, good, hostile, judged, leaf, read, result, unreached
from rich.console import Console
from stapleguard.diagnosis import Result
from stapleguard.finding import Code, find
from stapleguard.inventory import Place
from stapleguard.model import Verdict
from stapleguard.report import as_json, fleet
from stapleguard.report.readings import readings, summary
from stapleguard.report.screen import Round, changes, earlier, life, screen

pytestmark = pytest.mark.unit

CONTRACT = {
    *("host", "port", "address", "server_name", "protocol", "key_type", "leaf_sha256", "chain_sha256"),
    *("workers", "handshakes", "staple", "findings"),
}


def test_an_endpoint_object_is_the_published_one_with_verdict_and_cause() -> None:
    told = result(good())
    [reading] = readings(told, Place("www.site.test", 443))
    assert reading.json.keys() == CONTRACT | {"verdict", "cause"}
    [published] = as_json(told)["endpoints"]  # type: ignore[misc]
    assert {name: reading.json[name] for name in CONTRACT} == published
    assert (reading.json["verdict"], reading.json["cause"]) == ("verified", None)
    line = fleet.json_line(reading)
    assert (line.count("\n"), json.loads(line)) == (1, reading.json)


def test_each_address_of_a_name_has_its_own_verdict() -> None:
    fine, naked, dead = good(), bare(endpoint(address="192.0.2.2")), unreached(endpoint(address="192.0.2.3"))
    read_ = read(fine, naked, dead)
    assert [(one.verdict, one.cause) for one in read_] == [
        (Verdict.VERIFIED, None),
        (Verdict.DEGRADED, Code.STAPLE_ABSENT),
        (Verdict.INCONCLUSIVE, Code.SERVED_UNREACHABLE),
    ]
    assert [one.code for one in read_[0].findings] == []


def test_good_but_not_settled_is_not_verified() -> None:
    short = replace(good(endpoint(address="192.0.2.2")), sightings=good().sightings[:2])
    assert [one.verdict for one in read(good(), short)] == [Verdict.VERIFIED, Verdict.INCONCLUSIVE]


def test_what_was_found_of_all_is_told_of_each() -> None:
    shared = find(Code.SERVER_RESOLVER_BROKEN, "nginx.conf", "the resolver does not answer")
    both = read(bare(), bare(endpoint(address="192.0.2.2")), more=(shared,))
    assert [shared in one.findings for one in both] == [True, True]
    assert {one.cause for one in both} == {Code.SERVER_RESOLVER_BROKEN}


def test_where_nothing_was_tried_the_place_stands_for_it() -> None:
    missing = find(Code.DNS_NAME_NOT_FOUND, "no.test", "no.test has no address")
    [reading] = readings(
        Result("check", Verdict.INCONCLUSIVE, missing.code, (missing,)),
        Place("no.test", 443, labels={"a": "b"}),
    )
    assert (reading.where, reading.verdict, reading.cause) == (
        "no.test:443",
        Verdict.INCONCLUSIVE,
        missing.code,
    )
    lineage = Result("check", Verdict.INCONCLUSIVE, missing.code, (missing,))
    assert readings(lineage, Place("no.test", 0))[0].where == "no.test"
    assert (reading.json["address"], reading.json["leaf_sha256"], reading.labels) == ("", None, {"a": "b"})


def test_the_whole_repeats_no_finding_and_keeps_every_endpoint() -> None:
    told = read(good(), bare(endpoint(address="192.0.2.2")), bare(endpoint(address="192.0.2.3")))
    worst = result(bare())
    whole = fleet.as_json([*told, *told], worst)
    assert (whole["verdict"], whole["exit"], whole["cause"]) == ("degraded", 3, "staple.absent")
    assert len(whole["findings"]) == 2  # type: ignore[arg-type]
    assert len(whole["endpoints"]) == 6  # type: ignore[arg-type]


def test_text_tells_each_finding_once_with_a_few_of_its_subjects() -> None:
    many = [read(bare(endpoint(address=f"192.0.2.{number}")))[0] for number in range(9)]
    text = fleet.as_text([*many, *read(good())], io.StringIO())
    assert text.count("staple.absent") == 9 + 1
    assert text.count(" sends no staple") == 5
    assert "and 4 more" in text
    assert text.count("(1) ") == 1
    assert text.splitlines()[-1] == "10 endpoints: 1 verified, 9 degraded"
    assert fleet.as_text(read(good()), io.StringIO()).splitlines()[-1] == "1 endpoint: 1 verified"
    assert str(summary([])) == "0 endpoints: nothing looked at"


# --- the screen ------------------------------------------------------------------------------------------


def drawn(shown: Round, width: int = 120) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=shown.height, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(shown))
    return captured.get().splitlines()


def test_the_bad_ones_come_first_and_what_has_no_room_is_counted() -> None:
    rows = [(read(good(endpoint(f"w{number}.test")))[0], None) for number in range(20)]
    rows.append((read(bare(endpoint("bad.test")))[0], None))
    lines = drawn(Round(rows, NOW, "12:00:00 UTC", 12))
    assert len(lines) <= 12
    assert "21 endpoints: 20 verified, 1 degraded" in lines
    assert "degraded" in lines[4]
    assert "bad.test" in lines[4]
    assert lines[-1].strip() == f"and {21 - 6} more below"
    assert not any("more below" in line for line in drawn(Round(rows[:3], NOW, "", 12)))


def test_the_screen_shows_lives_workers_and_what_changed() -> None:
    before, after = read(good())[0], read(bare(served=leaf(0.5, mark="b")))[0]
    [line] = drawn(Round([(after, before)], NOW, "", 24), 160)[4:5]
    for word in ("degraded", "bbbbbbbb", "12h00m", "none", "was verified, new certificate, staple lost"):
        assert word in line
    [calm] = drawn(Round([(before, before)], NOW, "", 24), 160)[4:5]
    assert "was" not in calm
    assert calm.split()[-3:] == ["60d", "3d", "100%"]


def test_changes() -> None:
    fine, naked, dead = read(good())[0], read(bare())[0], read(unreached())[0]
    assert changes(None, fine) == ""
    assert changes(fine, fine) == ""
    assert changes(naked, fine) == "was degraded, staple came"
    assert changes(dead, fine) == "was inconclusive, staple came"
    fresh = read(good(judgement=replace(judged(), sha256="e" * 64)))[0]
    assert changes(fine, fresh) == "new staple"
    assert changes(replace(naked, cause=Code.NET_BLOCKED), naked) == "was net.blocked"


def test_an_endpoint_is_recognised_when_its_key_type_or_address_is_new() -> None:
    fine, dead, other = read(good())[0], read(unreached())[0], read(good(endpoint(address="192.0.2.9")))[0]
    assert earlier(fine, [other, fine]) is fine
    assert earlier(fine, [other, dead]) is dead
    assert earlier(fine, [other]) is other
    assert earlier(fine, [other, other]) is None


@pytest.mark.parametrize(
    ("days", "said"),
    [(60, "60d"), (2.5, "60h00m"), (0.25, "6h00m"), (1 / 96, "15m"), (1 / 9999, "<1m"), (-1, "ended")],
)
def test_life(days: float, said: str) -> None:
    assert life(NOW + days * DAY, NOW) == said


def test_hostile_text_moves_no_cursor_of_the_screen() -> None:
    strand = good(endpoint("a\x1b[2J\nb"))
    text = "\n".join(drawn(Round([(read(strand, more=(hostile(),))[0], None)], NOW, "", 24)))
    assert "\x1b" not in text
