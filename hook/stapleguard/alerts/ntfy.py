"""ntfy (docs.ntfy.sh, "Publish as JSON"): the topic goes into the body, so no header holds foreign text."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from stapleguard.alerts.webhook import json_post
from stapleguard.model import Json
from stapleguard.notice import Event, Notice, Urgency, body, subject
from stapleguard.wire.post import Post

_PRIORITY: Final = {Urgency.CRITICAL: 5, Urgency.ERROR: 4, Urgency.WARNING: 3, Urgency.INFO: 3}
_TAGS: Final = {
    Event.TROUBLE: "rotating_light",
    Event.REMINDER: "rotating_light",
    Event.RECOVERED: "white_check_mark",
    Event.TEST: "wrench",
}
_MESSAGE: Final = 4000
"""Bytes: a longer message becomes an attachment, which a server may not allow."""


def request(notice: Notice, url: str, token: str) -> Post:
    """Compose the request; `url` is that of the topic, as a browser shows it."""
    parts = urlsplit(url)
    folder, _, topic = parts.path.rpartition("/")
    message = body(notice).encode()[:_MESSAGE].decode("utf-8", "ignore")
    document: dict[str, Json] = {
        "topic": topic,
        "title": subject(notice),
        "message": message,
        "priority": _PRIORITY[notice.urgency],
        "tags": [_TAGS[notice.event]],
    }
    return json_post(f"{parts.scheme}://{parts.netloc}{folder}/", document, token)
