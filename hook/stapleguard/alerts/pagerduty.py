"""PagerDuty Events API v2: an incident is opened and closed under one dedup key."""

from __future__ import annotations

import hashlib
from typing import Final

from stapleguard.alerts.webhook import json_post
from stapleguard.model import Json, escape
from stapleguard.notice import Event, Notice, as_json, body, subject
from stapleguard.wire.post import Post

URL: Final = "https://events.pagerduty.com/v2/enqueue"
_KEY: Final = 255
_SUMMARY: Final = 1024
_SOURCE: Final = 250


def request(notice: Notice, url: str, token: str) -> Post:
    """Compose the request; the token is the routing key of the service."""
    event: dict[str, Json] = {
        "routing_key": token,
        "event_action": "resolve" if notice.event is Event.RECOVERED else "trigger",
        "dedup_key": _key(notice),
    }
    if notice.event is not Event.RECOVERED:
        event["payload"] = {
            "summary": subject(notice)[:_SUMMARY],
            "source": escape(notice.host, _SOURCE),
            "severity": notice.urgency.value,
            "timestamp": notice.at.isoformat(timespec="seconds"),
            "component": escape(notice.about, _SOURCE),
            "group": "stapleguard",
            "class": notice.cause or notice.verdict or notice.kind or notice.event.value,
            "custom_details": {"text": body(notice), **as_json(notice)},
        }
    return json_post(url or URL, event)


def _key(notice: Notice) -> str:
    if len(notice.key) <= _KEY:
        return notice.key
    return hashlib.sha256(notice.key.encode()).hexdigest()
