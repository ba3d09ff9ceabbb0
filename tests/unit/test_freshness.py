"""The course of a staple file through its life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stapleguard.freshness import Course, Life, draw_of

pytestmark = pytest.mark.unit

BEGIN = datetime(2026, 11, 25, tzinfo=UTC)
ORDER = list(Course)


def at(life: Life, part: float, margin: float = 900.0, draw: float = 0.0) -> Course:
    return life.course(life.begin + life.length * part, draw, margin)


def test_a_week() -> None:
    life = Life.of(BEGIN, BEGIN + timedelta(days=7))
    assert [at(life, part) for part in (0, 0.49, 0.5, 0.74, 0.75, 0.998)] == [
        Course.KEEP, Course.KEEP, Course.RENEW, Course.RENEW, Course.ALARM, Course.ALARM,
    ]  # fmt: skip
    assert life.course(life.end - timedelta(seconds=901), 0, 900) is Course.ALARM
    assert life.course(life.end - timedelta(seconds=900), 0, 900) is Course.WITHDRAW
    assert at(life, 2) is Course.WITHDRAW
    assert at(life, 0.59, draw=1.0) is Course.KEEP


def test_a_minute_keeps_an_eighth_of_it() -> None:
    life = Life.of(BEGIN, BEGIN + timedelta(seconds=60))
    assert [at(life, part) for part in (0.4, 0.6, 0.8, 0.87, 0.88)] == [
        Course.KEEP, Course.RENEW, Course.ALARM, Course.ALARM, Course.WITHDRAW,
    ]  # fmt: skip


@given(st.floats(1, 1e8), st.floats(0, 1.2), st.floats(0, 1.2), st.floats(0, 1), st.floats(0, 1e7))
def test_it_only_goes_forward_and_is_withdrawn_in_time(
    seconds: float, one: float, other: float, draw: float, margin: float
) -> None:
    life = Life.of(BEGIN, BEGIN + timedelta(seconds=seconds))
    earlier, later = sorted((one, other))
    assert ORDER.index(at(life, earlier, margin, draw)) <= ORDER.index(at(life, later, margin, draw))
    assert life.course(life.end, draw, margin) is Course.WITHDRAW


def test_without_an_end_it_lives_for_half_a_day() -> None:
    assert Life.of(BEGIN, None).end == BEGIN + timedelta(hours=12)


def test_the_draw_is_the_same_for_the_same_texts_and_spreads() -> None:
    draws = [draw_of("leaf", str(number)) for number in range(200)]
    assert draws == [draw_of("leaf", str(number)) for number in range(200)]
    assert all(0 <= one < 1 for one in draws)
    assert min(draws) < 0.1
    assert max(draws) > 0.9
