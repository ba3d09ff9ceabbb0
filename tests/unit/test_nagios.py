"""The plugin line, read by the grammar of the Monitoring Plugins guidelines."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from looked import NOW, bare, endpoint, good, hostile, judged, leaf, read, unreached
from stapleguard.finding import Code, find
from stapleguard.model import Severity
from stapleguard.ocsp import Acceptance
from stapleguard.report.nagios import State, Thresholds, line, unknown
from stapleguard.report.readings import Reading

pytestmark = pytest.mark.unit

NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
RANGE = rf"@?(?:~|{NUMBER})?:?(?:{NUMBER})?"
UNIT = "us|ms|s|%|[KMGT]?B|c"
DATUM = rf"(?:'[^'=]+'|[^\s'=]+)={NUMBER}(?:{UNIT})?(?:;(?:{RANGE})){{0,2}}(?:;(?:{NUMBER})?){{0,2}}"
PLUGIN = re.compile(
    rf"STAPLEGUARD (OK|WARNING|CRITICAL|UNKNOWN) - ([^|\n]+)(?:\| ((?:{DATUM})(?: {DATUM})*))?"
)


DEFAULT = Thresholds()


def parsed(*readings: Reading, limits: Thresholds = DEFAULT) -> tuple[State, str, dict[str, str]]:
    state, text = line(readings, limits, NOW)
    match = PLUGIN.fullmatch(text)
    assert match is not None, text
    assert match[1] == state.name
    return state, match[2], dict(one.split("=", 1) for one in (match[3] or "").split())


def test_the_grammar_refuses_what_is_no_plugin_line() -> None:
    for wrong in (
        "STAPLEGUARD FINE - x",
        "STAPLEGUARD OK - a | b",
        "STAPLEGUARD OK - a\nb",
        "STAPLEGUARD OK - a | b=1|c=2",
    ):
        assert PLUGIN.fullmatch(wrong) is None


def test_all_good() -> None:
    state, text, data = parsed(*read(good()), *read(good(endpoint("b.test"), leaf(30))))
    assert (state, text.strip()) == (State.OK, "2 endpoints: 2 verified")
    assert data == {
        "staple_life": "259200s",
        "certificate_life": "2592000s;1209600:;259200:",
        "endpoints": "2;;;0",
        "verified": "2;;;0;2",
    }


@pytest.mark.parametrize(
    ("reading", "state", "says"),
    [
        (read(good(served=leaf(13)))[0], State.WARNING, "its certificate ends in 13.0 days"),
        (read(good(served=leaf(2)))[0], State.CRITICAL, "its certificate ends in 2.0 days"),
        (read(bare())[0], State.WARNING, "sends no staple"),
        (read(bare(served=leaf(2)))[0], State.CRITICAL, "sends no staple"),
        (read(bare(served=leaf(must_staple=True)))[0], State.CRITICAL, "must-staple"),
        (read(good(judgement=judged(Acceptance.REJECTED)))[0], State.CRITICAL, "staples a bad answer"),
        (read(unreached())[0], State.UNKNOWN, "ECONNREFUSED"),
        (
            read(good(), more=(find(Code.STAPLE_NEAR_EXPIRY, "x", "the response ends soon"),))[0],
            State.WARNING,
            "ends soon",
        ),
        (
            read(good(), more=(find(Code.SERVER_NOT_GUARDED, "x", "news", severity=Severity.INFO),))[0],
            State.OK,
            "1 verified",
        ),
    ],
)
def test_each_state(reading: Reading, state: State, says: str) -> None:
    own, text, _ = parsed(reading)
    assert (own, says in text) == (state, True), text


def test_a_known_problem_is_not_hidden_by_an_unknown_one() -> None:
    dead, naked, fine = read(unreached())[0], read(bare())[0], read(good())[0]
    assert parsed(dead, naked, fine)[0] is State.WARNING
    assert parsed(dead, fine)[0] is State.UNKNOWN
    assert parsed(dead, naked, read(good(served=leaf(1)))[0])[0] is State.CRITICAL
    assert parsed()[0] is State.UNKNOWN


def test_the_thresholds_are_the_users() -> None:
    limits = Thresholds(timedelta(days=90), timedelta(days=70))
    assert parsed(*read(good()), limits=limits)[0] is State.CRITICAL
    assert parsed(*read(good(served=leaf(80))), limits=limits)[0] is State.WARNING
    assert parsed(*read(good(served=leaf(100))), limits=limits)[0] is State.OK


def test_many_problems_are_counted_and_the_line_stays_short() -> None:
    many = [read(bare(endpoint(f"host{number}.test")))[0] for number in range(500)]
    _, text, _ = parsed(*many)
    assert "and 497 more" in text
    assert len(text) < 1024


def test_hostile_text_cannot_break_the_line() -> None:
    state, text, data = parsed(*read(good(endpoint("a|b\n'c'=1")), more=(hostile(),)))
    assert state is State.CRITICAL
    assert "\x1b" not in text
    assert data.keys() == {"staple_life", "certificate_life", "endpoints", "degraded"}
    assert PLUGIN.fullmatch(unknown("cannot read a|b\n\x07")) is not None
