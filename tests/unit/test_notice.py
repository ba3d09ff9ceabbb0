"""What a person is told, before any channel shapes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looked import good
from stapleguard.diagnosis import Result
from stapleguard.finding import CATALOGUE, Code, find
from stapleguard.model import Verdict
from stapleguard.notice import Event, Notice, Urgency, as_json, body, facts_of, from_json, probe, subject

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 25, 4, tzinfo=UTC)
texts = st.text(max_size=400)


def notice(event: Event = Event.TROUBLE, **changes: object) -> Notice:
    fault = find(Code.OCSP_UNAUTHORIZED, "www.a.test", "the responder answers unauthorized (6)")
    result = Result("deploy", Verdict.DEGRADED, fault.code, (fault,))
    facts = facts_of(result, NOW + timedelta(days=30))
    given = {"verdict": "degraded", "cause": "ocsp.unauthorized", "facts": facts, **changes}
    return Notice(event, "web1", "www.a.test", NOW, NOW - timedelta(hours=2), **given)  # type: ignore[arg-type]


@st.composite
def hostile(draw: st.DrawFn) -> Notice:
    """A message whose every text may be anything, as from a certificate or a broken state directory."""
    facts = {
        "message": draw(texts),
        "remedy": draw(st.lists(texts, max_size=12)),
        "endpoints": draw(st.lists(texts, max_size=12)),
        "served": draw(st.lists(texts, max_size=12)),
        "until_what": draw(texts),
        "until": draw(st.sampled_from(["", "x", "2026-12-01T00:00:00+00:00"])),
    }
    words = [draw(texts.filter(bool)) for _ in range(4)]
    return Notice(
        draw(st.sampled_from(Event)), words[0], words[1], NOW, NOW, "degraded", words[2], words[3], facts
    )


def test_it_says_everything() -> None:
    said = body(notice())
    for part in (
        "www.a.test: degraded, ocsp.unauthorized (web1)\n",
        "What happened: The certificate is served, but something is missing or wrong.\n",
        "Cause: ocsp.unauthorized: the responder answers unauthorized (6)\n",
        "Since: 2026-11-25 02:00 UTC\n",
        "Time left: 30 days; the published certificate ends on 2026-12-25 04:00 UTC\n",
        "1. Issued within the last 15 minutes",
        "More: stapleguard explain ocsp.unauthorized\n",
    ):
        assert part in said
    assert "degraded" not in body(notice(Event.RECOVERED)).partition("\n")[0]
    assert "What to do" not in body(notice(Event.RECOVERED))


def test_it_says_what_is_served_where() -> None:
    strand = good()
    facts = facts_of(Result("check", Verdict.DEGRADED, None, (), (strand,)))
    assert facts["endpoints"] == [str(strand.endpoint)]
    (served,) = facts["served"]  # type: ignore[misc]
    assert strand.last is not None
    assert strand.last.leaf is not None
    assert strand.last.leaf.sha256[:12] in served
    assert "staple" in served
    assert facts["until"] == strand.last.leaf.not_after.isoformat(timespec="seconds")
    assert "until" not in facts_of(Result("check", Verdict.STRANDED, None, (), (strand,)))


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event.TROUBLE, "www.a.test: degraded, ocsp.unauthorized (web1)"),
        (Event.REMINDER, "www.a.test: still degraded, ocsp.unauthorized (web1)"),
        (Event.RECOVERED, "www.a.test: recovered (web1)"),
        (Event.TEST, "www.a.test: a test message (web1)"),
    ],
)
def test_the_subject(event: Event, said: str) -> None:
    assert subject(notice(event)) == said


def test_urgency() -> None:
    assert notice(verdict="stranded").urgency is Urgency.CRITICAL
    assert notice(verdict="rolled-back").urgency is Urgency.WARNING
    assert notice(verdict="").urgency is Urgency.ERROR
    assert notice(Event.RECOVERED).urgency is Urgency.INFO
    assert probe("h", NOW).urgency is Urgency.INFO


@pytest.mark.parametrize("code", Code)
def test_every_cause_has_a_subject_for_a_phone(code: Code) -> None:
    said = subject(notice(cause=code.value))
    assert code.value in said or len(said) == 78
    assert len(said) <= 78
    assert CATALOGUE[code].title


@given(hostile())
def test_no_text_can_forge_a_line(one: Notice) -> None:
    assert len(subject(one)) <= 78
    assert subject(one).isprintable()
    assert all(line.isprintable() for line in body(one).split("\n"))
    assert len(body(one)) < 20_000
    # Ours are the only lines: as many as there are facts and steps.
    assert body(one).count("\n") <= 8 + 14 + 5


@given(hostile())
def test_it_survives_the_queue(one: Notice) -> None:
    assert from_json(json.loads(json.dumps(as_json(one)))) is not None
    known = notice()
    read = from_json(json.loads(json.dumps(as_json(known))))
    assert read is not None
    assert (read.key, body(read)) == (known.key, body(known))


@pytest.mark.parametrize("data", [{}, {"event": "trouble"}, {"event": 1, "about": "a", "at": "x"}])
def test_what_cannot_be_read_is_nothing(data: dict[str, object]) -> None:
    assert from_json(data) is None
