"""Each shape is what its vendor documents, whatever a certificate says; and the checks themselves bite."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from lab import vendors
from stapleguard.alerts import (
    alertmanager,
    discord,
    healthchecks,
    mail,
    ntfy,
    pagerduty,
    slack,
    teams,
    webhook,
)
from stapleguard.channels import Channel, Kind
from stapleguard.notice import Event, Notice, body, subject
from stapleguard.wire.post import Post
from test_notice import NOW, hostile, notice

pytestmark = pytest.mark.unit

Shape = tuple[Callable[[Notice, str, str], Post], Callable[[Any], None]]
SHAPES: dict[str, Shape] = {
    "slack": (slack.request, vendors.slack),
    "discord": (discord.request, vendors.discord),
    "teams": (teams.request, vendors.teams),
    "ntfy": (ntfy.request, vendors.ntfy),
    "pagerduty": (pagerduty.request, vendors.pagerduty),
    "alertmanager": (alertmanager.request, vendors.alertmanager),
    "webhook": (webhook.request, vendors.webhook),
}
URL = "https://hooks.example.org/services/topic"
TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = 'x"}]<!channel> @everyone **b** [l](http://e) `c` </p>&amp; \\'


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=40)
@given(one=hostile())
def test_the_vendor_would_take_it(name: str, one: Notice) -> None:
    compose, check = SHAPES[name]
    sent = compose(one, URL, TOKEN)
    assert sent.body.isascii()
    assert sent.headers["Content-Type"] == "application/json"
    check(json.loads(sent.body))
    assert all(text.isprintable() for text in sent.headers.values())
    assert TOKEN not in repr(sent)
    assert "services" not in repr(sent)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("text", [HOSTILE, "<!here>", "\\" * 301, "x" + "*" * 301, "&" * 301])
def test_the_vendor_would_take_what_is_hostile_on_purpose(name: str, text: str) -> None:
    compose, check = SHAPES[name]
    facts = {"message": text, "remedy": [text], "endpoints": [text], "served": [text]}
    for cut in range(3):  # what is cut must not end in half of an escape
        one = replace(notice(facts=facts), about=text[cut:], host=text)
        check(json.loads(compose(one, URL, TOKEN).body))


def broken(value: Any) -> Any:
    """The same with one text of ours replaced by a hostile one that was not escaped."""
    if isinstance(value, dict):
        return {key: broken(one) if key not in ("type", "version") else one for key, one in value.items()}
    if isinstance(value, list):
        return [broken(one) for one in value]
    return HOSTILE * 999 if isinstance(value, str) else value


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"webhook"}))
def test_the_check_bites(name: str) -> None:
    compose, check = SHAPES[name]
    with pytest.raises((AssertionError, ValueError)):
        check(broken(json.loads(compose(notice(), URL, TOKEN).body)))


def test_pagerduty_opens_and_closes_one_incident() -> None:
    opened, again, closed = (
        json.loads(pagerduty.request(notice(event), "", TOKEN).body)
        for event in (Event.TROUBLE, Event.REMINDER, Event.RECOVERED)
    )
    assert opened["dedup_key"] == again["dedup_key"] == closed["dedup_key"]
    assert [one["event_action"] for one in (opened, again, closed)] == ["trigger", "trigger", "resolve"]
    assert pagerduty.request(notice(), "", TOKEN).url == pagerduty.URL


def test_ntfy_posts_to_the_root_and_keeps_the_token_out_of_the_body() -> None:
    sent = ntfy.request(notice(), "https://ntfy.example.org/base/alerts", TOKEN)
    assert sent.url == "https://ntfy.example.org/base/"
    assert json.loads(sent.body)["topic"] == "alerts"
    assert sent.headers["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN.encode() not in sent.body


def test_healthchecks_says_how_it_is() -> None:
    url = "https://hc.example.org/uuid"
    assert healthchecks.report([], url).url == url
    failed = healthchecks.report([notice()], url)
    assert failed.url == f"{url}/fail"
    assert b"ocsp.unauthorized" in failed.body
    assert healthchecks.request(notice(), f"{url}/?create=1", "").url == f"{url}/log?create=1"


def test_alertmanager_ends_what_is_over() -> None:
    gone = alertmanager.labels(notice())
    sent = json.loads(alertmanager.report([], [gone], URL, "", NOW).body)
    assert sent == [{"labels": gone, "endsAt": NOW.isoformat()}]


MAIL = Channel("m", Kind.MAIL, to=("ops@example.org", "b@example.org"), sender="cert@example.org")


@given(hostile())
def test_no_header_of_a_mail_can_be_forged(one: Notice) -> None:
    message = mail.compose(MAIL, one)
    allowed = {"from", "to", "subject", "date", "message-id", "references", "auto-submitted", "mime-version"}
    raw = message.as_bytes()
    head = raw.partition(b"\r\n\r\n")[0].decode("ascii")
    names = {line.partition(":")[0].lower() for line in head.split("\r\n") if line[:1] not in (" ", "\t")}
    assert names <= allowed | {"x-stapleguard-event", "x-priority", "content-type"}
    assert message["To"] == "ops@example.org, b@example.org"
    assert all(len(line) < 998 for line in raw.split(b"\r\n"))
    text, facts = message.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == body(one)
    assert json.loads(facts.get_content())["subject"] == subject(one)


def test_mails_of_one_trouble_are_one_thread() -> None:
    first, last = (mail.compose(MAIL, notice(event)) for event in (Event.TROUBLE, Event.RECOVERED))
    assert first["References"] == last["References"]
    assert first["Message-ID"] != last["Message-ID"]
    assert mail.compose(MAIL, notice())["Message-ID"] == first["Message-ID"]
