"""What each vendor documents for its inbound messages, as checks: AssertionError where it refuses or cuts.

Sources: Slack, "Incoming webhooks" and "Block Kit: text object, header, section"; Discord, "Execute Webhook"
and "Embed limits"; Adaptive Cards 1.4 and Microsoft, "Post to a channel when a webhook request is received";
ntfy, "Publish as JSON"; PagerDuty, "Events API v2: send an alert event"; Alertmanager, api/v2/openapi.yaml.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

TAGS = {"rotating_light", "white_check_mark", "wrench"}


def keys(value: Any, must: set[str], may: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert isinstance(value, dict)
    assert must <= value.keys() <= must | may, value.keys()


def short(text: Any, most: int) -> None:
    assert isinstance(text, str)
    assert 0 < len(text) <= most


def moment(text: Any) -> datetime:
    read = datetime.fromisoformat(text)
    assert read.tzinfo is not None
    return read


def slack(body: Any) -> None:
    keys(body, {"text"}, {"blocks", "mrkdwn"})
    short(body["text"], 4000)
    # Without raw angle brackets there is no <!channel>, no <@user> and no link.
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", body["text"])
    assert len(body["blocks"]) <= 50
    for block in body["blocks"]:
        keys(block, {"type", "text"})
        assert block["type"] in ("header", "section")
        keys(block["text"], {"type", "text"}, {"emoji"})
        assert block["text"]["type"] == "plain_text"
        short(block["text"]["text"], 150 if block["type"] == "header" else 3000)


MARKUP = re.compile(r"(?<!\\)(?:\\\\)*[*_~`|<>\[\]#@]")
"""Markup of Discord that no backslash takes away."""


def discord(body: Any) -> None:
    keys(body, {"embeds", "allowed_mentions"}, {"content", "username"})
    assert body["allowed_mentions"] == {"parse": []}
    assert len(body["embeds"]) <= 10
    total = 0
    for embed in body["embeds"]:
        keys(embed, {"title"}, {"description", "color", "timestamp", "fields"})
        short(embed["title"], 256)
        assert len(embed["description"]) <= 4096
        assert 0 <= embed["color"] <= 0xFFFFFF
        moment(embed["timestamp"])
        assert len(embed["fields"]) <= 25
        texts = [embed["title"], embed["description"]]
        for field in embed["fields"]:
            keys(field, {"name", "value"}, {"inline"})
            short(field["name"], 256)
            short(field["value"], 1024)
            texts += [field["name"], field["value"]]
        for text in texts:
            assert not MARKUP.search(text), text
            assert (len(text) - len(text.rstrip("\\"))) % 2 == 0
        total += sum(map(len, texts))
    assert total <= 6000


def teams(body: Any) -> None:
    keys(body, {"type", "attachments"})
    assert body["type"] == "message"
    assert len(str(body)) < 28_000
    for attachment in body["attachments"]:
        keys(attachment, {"contentType", "contentUrl", "content"})
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        card = attachment["content"]
        keys(card, {"$schema", "type", "version", "body"})
        assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
        for block in card["body"]:
            keys(block, {"type", "inlines"})
            assert block["type"] == "RichTextBlock"  # a TextBlock would read Markdown
            for run in block["inlines"]:
                keys(run, {"type", "text"}, {"size", "weight", "color"})
                assert run["type"] == "TextRun"
                assert run.get("color", "good") in ("good", "warning", "attention")


def ntfy(body: Any) -> None:
    keys(body, {"topic", "message"}, {"title", "tags", "priority"})
    assert re.fullmatch(r"[-_A-Za-z0-9]{1,64}", body["topic"])
    assert 0 < len(body["message"].encode()) <= 4096
    short(body["title"], 250)
    assert body["priority"] in (1, 2, 3, 4, 5)
    assert set(body["tags"]) <= TAGS


def pagerduty(body: Any) -> None:
    keys(body, {"routing_key", "event_action", "dedup_key"}, {"payload"})
    assert re.fullmatch(r"[A-Za-z0-9]{32}", body["routing_key"])
    short(body["dedup_key"], 255)
    assert body["event_action"] in ("trigger", "resolve")
    if body["event_action"] == "resolve":
        assert "payload" not in body
        return
    payload = body["payload"]
    optional = {"timestamp", "component", "group", "class", "custom_details"}
    keys(payload, {"summary", "source", "severity"}, optional)
    short(payload["summary"], 1024)
    short(payload["source"], 255)
    assert payload["severity"] in ("critical", "error", "warning", "info")
    moment(payload["timestamp"])
    assert len(str(body).encode()) < 512_000


def alertmanager(body: Any) -> None:
    assert isinstance(body, list)
    for alert in body:
        keys(alert, {"labels"}, {"annotations", "startsAt", "endsAt", "generatorURL"})
        assert alert["labels"]["alertname"]
        for name, text in {**alert["labels"], **alert.get("annotations", {})}.items():
            assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name)
            assert isinstance(text, str)
            assert text
        moment(alert["endsAt"])


def webhook(body: Any) -> None:
    keys(
        body,
        {"schema", "event", "urgency", "key", "host", "about", "at", "since", "verdict", "cause", "kind"}
        | {"subject", "facts"},
    )
    assert body["schema"] == "stapleguard.message/1"
