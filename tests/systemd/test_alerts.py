"""From a failed unit to a person and back: the alert unit's sandbox, its secrets, a channel that is down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import vendors
from lab.booted import Booted
from lab.process import until
from lab.receiver import Receiver
from served import NAME, SOURCE, Served
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.systemd
QUICK = "[retry]\nfloor = 1\ncap = 2\n[responder]\npatience = 0\n"


@pytest.fixture
def receiver(box: Booted) -> Iterator[Receiver]:
    def make() -> Receiver:
        made = Receiver()
        made.up()
        return made

    made = box.on_its_network(make)
    yield made
    made.down()


@pytest.fixture
def site(box: Booted, receiver: Receiver) -> Iterator[Served]:
    with Served(box) as made:
        secret = "/etc/credstore/slack"
        box.write(secret, f"{receiver.url}/services/secretpath\n", 0o600)
        made.configure(
            QUICK + '[alerts.slack]\nkind = "slack"\nurl = { credential = "slack" }\n'
            f'[alerts.own]\nkind = "webhook"\nurl = "{receiver.url}/own"\n'
            '[alerts.down]\nkind = "ntfy"\nurl = "http://127.0.0.1:9/topic"\n'
        )
        made.open()
        made.stapleguard("install").succeeded()
        yield made


def told(receiver: Receiver) -> list[tuple[str, str]]:
    return [(one.json["event"], one.json["about"]) for one in receiver.received if one.path == "/own"]


def test_from_the_failure_to_the_recovery(box: Booted, site: Served, receiver: Receiver) -> None:
    site.responder.set_mode(Mode.UNAUTHORIZED)
    site.renew()
    env = {"RENEWED_LINEAGE": SOURCE, "RENEWED_DOMAINS": NAME}
    box.run("stapleguard", "hook", env=env).succeeded()
    until(lambda: len(told(receiver)) == 2, "the trouble of the site and that of a channel", 30)
    assert told(receiver) == [("trouble", NAME), ("trouble", "alerts.down")]
    (slack,) = [one for one in receiver.received if one.path != "/own"][:1]
    assert slack.path == "/services/secretpath"
    vendors.slack(slack.json)
    facts = next(one.json["facts"] for one in receiver.received if one.path == "/own")
    assert facts["endpoints"] == [f"{NAME} at 127.0.0.1:443"]
    assert "no staple" in facts["served"][0]
    assert facts["until"]
    # A second failure of the same kind is no news.
    box.run("systemctl", "start", rf"stapleguard@{NAME}.service")
    site.responder.set_mode(Mode.GOOD)
    box.run("systemctl", "start", rf"stapleguard@{NAME}.service").succeeded()
    until(lambda: ("recovered", NAME) in told(receiver), "the end of it", 30)
    assert [one for one in told(receiver) if one[1] == NAME] == [("trouble", NAME), ("recovered", NAME)]
    entries = box.journal("SYSLOG_IDENTIFIER=stapleguard")
    assert entries
    assert not any("secretpath" in str(one) for one in entries)
