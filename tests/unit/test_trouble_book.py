"""A person is told once of each trouble, and once when it is over."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stapleguard.finding import Code
from stapleguard.model import Verdict
from stapleguard.trouble import GOOD, Book, after, crashed, from_json, tell, to_json, without

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ENDS = st.tuples(st.sampled_from(Verdict), st.none() | st.sampled_from(Code))


def test_once_and_once_when_over() -> None:
    book: Book = {}
    said = []
    for verdict, cause in (
        (Verdict.DEGRADED, Code.OCSP_UNAUTHORIZED),
        (Verdict.DEGRADED, Code.NET_REFUSED),  # the responder still, in other words
        (Verdict.PENDING, Code.NET_REFUSED),
        (Verdict.DEGRADED, Code.OCSP_TRY_LATER),
    ):
        book, over = after(book, "a", verdict, cause, NOW)
        book, news = tell(book, NOW)
        said += [one.cause for one in news]
        assert over is None
    assert said == ["ocsp.unauthorized"]
    book, over = after(book, "a", Verdict.VERIFIED, None, NOW)
    assert over is not None
    assert over.cause == "ocsp.unauthorized"
    assert after(book, "a", Verdict.VERIFIED, None, NOW) == ({}, None)


def test_another_trouble_is_told_again() -> None:
    book, _ = after({}, "a", Verdict.DEGRADED, Code.OCSP_UNAUTHORIZED, NOW)
    book, _ = tell(book, NOW)
    book, _ = after(book, "a", Verdict.STRANDED, Code.SERVER_NOT_RUNNING, NOW)
    assert [one.verdict for one in tell(book, NOW)[1]] == ["stranded"]


def test_what_nobody_was_told_of_is_not_told_to_be_over() -> None:
    book, _ = after({}, "a", Verdict.DEGRADED, Code.STAPLE_ABSENT, NOW)
    assert after(book, "a", Verdict.VERIFIED, None, NOW) == ({}, None)


def test_a_crash_of_a_unit() -> None:
    book = crashed({}, "x.service", "signal KILL", NOW)
    book, news = tell(book, NOW)
    assert [one.about for one in news] == ["x.service"]
    assert tell(crashed(book, "x.service", "signal KILL", NOW), NOW)[1] == ()
    assert without(book, "x.service") == {}


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), ENDS, st.booleans())))
def test_news_and_ends_alternate(steps: list[tuple[str, tuple[Verdict, Code | None], bool]]) -> None:
    book: Book = {}
    open_: dict[str, bool] = {}
    for about, (verdict, cause), telling in steps:
        book, over = after(book, about, verdict, cause, NOW)
        if over is not None:
            assert verdict in GOOD
            assert open_.pop(about)
        if telling:
            book, news = tell(book, NOW)
            open_ |= {one.about: True for one in news}
            assert tell(book, NOW)[1] == ()
        assert from_json(json.loads(json.dumps(to_json(book)))) == book


@pytest.mark.parametrize("data", [{"a": 1}, {"a": {"since": "x"}}, {"a": {"since": "2026-01-01"}}])
def test_what_cannot_be_read_is_left_out(data: dict[str, object]) -> None:
    assert from_json(data) == {}
