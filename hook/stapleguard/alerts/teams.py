"""Microsoft Teams by a workflow ("Post to a channel when a webhook request is received"): an Adaptive Card.

A RichTextBlock knows no Markdown, unlike a TextBlock (adaptivecards.io, TextRun).
"""

from __future__ import annotations

from stapleguard.alerts.webhook import json_post
from stapleguard.model import Json
from stapleguard.notice import Notice, Urgency, rows, steps, subject
from stapleguard.wire.post import Post

_COLOURS = {
    Urgency.CRITICAL: "attention",
    Urgency.ERROR: "attention",
    Urgency.WARNING: "warning",
    Urgency.INFO: "good",
}


def request(notice: Notice, url: str, _token: str) -> Post:
    """Compose the request."""
    heading: dict[str, Json] = {
        "type": "TextRun",
        "text": subject(notice),
        "size": "large",
        "weight": "bolder",
        "color": _COLOURS[notice.urgency],
    }
    lines = [
        _block({"type": "TextRun", "text": f"{title}: ", "weight": "bolder"}, _run(text))
        for title, text in rows(notice)
    ]
    todo = [_block(_run(f"{number}. {text}")) for number, text in enumerate(steps(notice), 1)]
    card: dict[str, Json] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [_block(heading), *lines, *todo],
    }
    attachment: dict[str, Json] = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return json_post(url, {"type": "message", "attachments": [attachment]})


def _run(text: str) -> Json:
    return {"type": "TextRun", "text": text}


def _block(*runs: Json) -> Json:
    return {"type": "RichTextBlock", "inlines": [*runs]}
