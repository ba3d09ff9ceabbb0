"""Slack's incoming webhooks (docs.slack.dev, "Sending messages using incoming webhooks").

Blocks of the type plain_text know no markup at all; the fallback text does, so it is escaped as Slack
asks for (`&`, `<` and `>`; without those there is no link and no mention) and its markup is switched off.
"""

from __future__ import annotations

from typing import Final

from stapleguard.alerts.webhook import json_post
from stapleguard.model import Json
from stapleguard.notice import Notice, body, subject
from stapleguard.wire.post import Post

_HEADER: Final = 150
_SECTION: Final = 3000


def request(notice: Notice, url: str, _token: str) -> Post:
    """Compose the request."""
    fallback = subject(notice)
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        fallback = fallback.replace(mark, entity)
    blocks: list[Json] = [
        {"type": "header", "text": _plain(subject(notice), _HEADER)},
        {"type": "section", "text": _plain(body(notice), _SECTION)},
    ]
    return json_post(url, {"text": fallback, "mrkdwn": False, "blocks": blocks})


def _plain(text: str, most: int) -> Json:
    return {"type": "plain_text", "text": text[:most], "emoji": False}
