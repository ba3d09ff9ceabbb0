"""Discord's webhooks (discord.com/developers, "Execute Webhook"): one embed, and nobody is mentioned."""

from __future__ import annotations

import re
from typing import Final

from stapleguard.alerts.webhook import json_post
from stapleguard.model import Json
from stapleguard.notice import Event, Notice, Urgency, rows, steps, subject
from stapleguard.wire.post import Post

_TITLE: Final = 256
_DESCRIPTION: Final = 2000
_FIELD: Final = 256
"""Less than the 1024 that are allowed: all texts of a message together may have 6000 characters."""
_COLOURS: Final = {
    Urgency.CRITICAL: 0xB3261E,
    Urgency.ERROR: 0xD9480F,
    Urgency.WARNING: 0xE6A700,
    Urgency.INFO: 0x2B8A3E,
}
_MARKUP: Final = re.compile(r"([\\*_~`|<>\[\]()#@:/-])")


def request(notice: Notice, url: str, _token: str) -> Post:
    """Compose the request."""
    fields: list[Json] = [
        {"name": title, "value": _cut(text, _FIELD), "inline": False} for title, text in rows(notice)
    ]
    todo = "\n".join(f"{number}\\. {_plain(text)}" for number, text in enumerate(steps(notice), 1))
    embed: dict[str, Json] = {
        "title": _cut(subject(notice), _TITLE),
        "description": todo[:_DESCRIPTION].rstrip("\\") if notice.event is not Event.RECOVERED else "",
        "color": _COLOURS[notice.urgency],
        "timestamp": notice.at.isoformat(timespec="seconds"),
        "fields": fields,
    }
    return json_post(url, {"embeds": [embed], "allowed_mentions": {"parse": []}})


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def _cut(text: str, most: int) -> str:
    plain = _plain(text)
    # An odd number of backslashes at the end would be half of an escape.
    cut = plain[:most]
    return cut[:-1] if (len(cut) - len(cut.rstrip("\\"))) % 2 else cut
