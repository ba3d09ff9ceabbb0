"""Prometheus Alertmanager, API v2: it wants to be told again what lasts, and when it has ended.

Each run of the timer sends every trouble with an end an hour ahead, so an alert outlives a short absence of
this host and not a long one; what is over is sent once more with its real end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from stapleguard.alerts.webhook import json_post
from stapleguard.model import Json
from stapleguard.notice import Notice, body, subject
from stapleguard.wire.post import Post

HOLD: Final = timedelta(hours=1)
_TEST: Final = timedelta(minutes=1)
PATH: Final = "/api/v2/alerts"

Labels = Mapping[str, Json]


def labels(notice: Notice) -> dict[str, Json]:
    """Return what identifies an alert; routes are chosen by these."""
    found = {
        "alertname": "StapleguardTrouble",
        "instance": notice.host,
        "name": notice.about,
        "severity": notice.urgency.value,
        "verdict": notice.verdict,
        "cause": notice.cause,
    }
    return {name: text for name, text in found.items() if text}


def request(notice: Notice, url: str, token: str) -> Post:
    """Compose the request that tests the channel."""
    return json_post(url.rstrip("/") + PATH, [_alert(notice, notice.at + _TEST)], token)


def report(current: Sequence[Notice], ended: Sequence[Labels], url: str, token: str, now: datetime) -> Post:
    """Compose the request for all that is the matter now, and for what has ended since it was last told."""
    alerts: list[Json] = [_alert(one, now + HOLD) for one in current]
    over: list[Json] = [{"labels": {**one}, "endsAt": _time(now)} for one in ended]
    return json_post(url.rstrip("/") + PATH, alerts + over, token)


def _alert(notice: Notice, until: datetime) -> Json:
    return {
        "labels": labels(notice),
        "annotations": {"summary": subject(notice), "description": body(notice)},
        "startsAt": _time(notice.since),
        "endsAt": _time(until),
    }


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
