"""Troubles reach real receivers: once, in order, again after a while, and after the receiver was away."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lab import vendors
from lab.receiver import Receiver
from lab.tools import REPOSITORY
from stapleguard.alerts import send
from stapleguard.alerts.outbox import Outbox
from stapleguard.channels import Channel, Kind, Reference, Source
from stapleguard.cli.telling import Teller, announce, book, deliver, well
from stapleguard.config import Config
from stapleguard.disk import StateDirectory
from stapleguard.notice import probe
from stapleguard.trouble import crashed

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 25, 4, tzinfo=UTC)
SECRET = "verysecretpath"


@dataclass
class Clock:
    """Time is the subject here."""

    at: datetime = NOW
    waited: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    def later(self, **span: float) -> None:
        self.at += timedelta(**span)


def webhook(receiver: Receiver, name: str = "hook", kind: Kind = Kind.WEBHOOK, **more: Any) -> Channel:
    return Channel(name, kind, Reference(Source.LITERAL, f"{receiver.url}/{SECRET}"), timeout=2, **more)


class House:
    """A state directory with receivers; every call is a new process as far as anything in memory goes."""

    def __init__(self, state: Path, channels: list[Channel]) -> None:
        self.clock = Clock()
        self.state = StateDirectory(state)
        self.state.prepare()
        config = Config(channels={one.name: one for one in channels}, alert_host="web1", alert_repeat=3600)
        self.teller = Teller(self.state, config, self.clock)

    def trouble(self, about: str = "a.test", kind: str = "signal KILL") -> None:
        with book(self.state) as lent:
            lent[0] = crashed(lent[0], about, kind, self.clock.now(), {"message": f"{about} broke"})

    def announce(self) -> list[str]:
        return [one.about for one in announce(self.teller, "x.service")]

    def over(self, about: str = "a.test") -> None:
        well(self.teller, about)
        deliver(self.teller)

    def waiting(self) -> list[str]:
        return [one.notice.event.value for one in Outbox(self.state).waiting()]


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Receiver())


def events(receiver: Receiver) -> list[tuple[str, str]]:
    return [(one.json["event"], one.json["about"]) for one in receiver.received]


def test_once_and_once_when_it_is_over(tmp_path: Path, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    house = House(tmp_path / "state", [webhook(receiver)])
    house.announce()
    assert receiver.received == []
    house.trouble()
    assert house.announce() == ["a.test"]
    house.trouble()
    assert house.announce() == []
    house.over()
    house.over()
    assert house.announce() == []
    assert events(receiver) == [("trouble", "a.test"), ("recovered", "a.test")]
    for one in receiver.received:
        vendors.webhook(one.json)


def test_what_lasts_is_told_again_after_a_while(tmp_path: Path, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    house = House(tmp_path / "state", [webhook(receiver)])
    house.trouble()
    for _ in range(5):
        house.announce()
        house.clock.later(minutes=29)
    assert [event for event, _ in events(receiver)] == ["trouble", "reminder"]
    house.teller = replace(house.teller, config=replace(house.teller.config, alert_repeat=0.0))
    house.clock.later(days=9)
    house.announce()
    assert len(receiver.received) == 2


def test_a_channel_that_is_down_gets_it_later_and_in_order(
    tmp_path: Path, receivers: Callable[[], Receiver]
) -> None:
    receiver, other = receivers(), receivers()
    house = House(tmp_path / "state", [webhook(receiver), webhook(other, "other")])
    receiver.down()
    house.trouble()
    assert house.announce() == ["a.test", "alerts.hook"]
    house.over()
    assert house.waiting() == ["trouble", "recovered"]
    # Its failure is told through the other one, without the secret, and once.
    assert events(other) == [("trouble", "a.test"), ("trouble", "alerts.hook"), ("recovered", "a.test")]
    assert "Connection refused" in other.received[1].json["facts"]["message"]
    assert SECRET.encode() not in b"".join(one.body for one in other.received)
    receiver.up()
    house.announce()
    assert receiver.received == [], "the back-off has not passed"
    house.clock.later(minutes=16)
    house.announce()
    assert events(receiver) == [("trouble", "a.test"), ("recovered", "a.test")]
    assert events(other)[3:] == [("recovered", "alerts.hook")]
    assert house.waiting() == []


def test_a_channel_that_stalls_delays_no_other(tmp_path: Path, receivers: Callable[[], Receiver]) -> None:
    stalled, other = receivers(), receivers()
    house = House(tmp_path / "state", [replace(webhook(stalled), timeout=1.0), webhook(other, "other")])
    stalled.stall()
    house.trouble()
    began = time.monotonic()
    house.announce()
    assert time.monotonic() - began < 4
    assert events(other) == [("trouble", "a.test"), ("trouble", "alerts.hook")]
    assert "no answer within 1 seconds" in other.received[1].json["facts"]["message"]


@pytest.mark.parametrize("status", [302, 400, 403, 500])
def test_a_status_that_is_no_yes_is_a_failure(status: int, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    receiver.status, receiver.answer = status, f"no: {SECRET} \x1b[31m".encode()
    sent = send(webhook(receiver), probe("h", NOW), {})
    assert sent.problem.startswith(f"the server answered {status}: no: ")
    assert SECRET not in sent.problem
    assert sent.problem.isprintable()


CHECKS = {
    Kind.SLACK: vendors.slack,
    Kind.DISCORD: vendors.discord,
    Kind.TEAMS: vendors.teams,
    Kind.NTFY: vendors.ntfy,
    Kind.PAGERDUTY: vendors.pagerduty,
    Kind.ALERTMANAGER: vendors.alertmanager,
    Kind.WEBHOOK: vendors.webhook,
}


@pytest.mark.parametrize("kind", CHECKS)
def test_each_shape_arrives_as_its_vendor_documents_it(kind: Kind, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    channel = webhook(receiver, kind=kind, token=Reference(Source.ENV, "TOKEN"))
    assert send(channel, probe("web1", NOW), {"TOKEN": "k" * 32}).taken
    (one,) = receiver.received
    assert one.headers["content-type"] == "application/json"
    CHECKS[kind](one.json)


def test_a_crash_between_queue_and_notes_says_nothing_twice(
    tmp_path: Path, receivers: Callable[[], Receiver]
) -> None:
    receiver = receivers()
    house = House(tmp_path / "state", [webhook(receiver)])
    house.trouble()
    noted = house.state.observation("trouble")
    receiver.down()
    house.announce()
    house.state.observe("trouble", noted)  # the note that it was told is lost
    house.clock.later(minutes=16)
    receiver.up()
    house.announce()
    assert events(receiver) == [("trouble", "a.test")]


def test_what_is_put_in_twice_keeps_its_place(tmp_path: Path) -> None:
    house = House(tmp_path / "state", [])
    box = Outbox(house.state)
    first, second = probe("first", NOW), probe("second", NOW)
    for one in (first, second, replace(first, at=NOW + timedelta(hours=1))):
        box.put("hook", one)
    assert [one.notice.host for one in box.waiting("hook")] == ["first", "second"]


def test_what_is_too_old_or_for_nobody_goes(tmp_path: Path, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    house = House(tmp_path / "state", [webhook(receiver)])
    house.teller = replace(house.teller, config=replace(house.teller.config, alert_repeat=0.0))
    receiver.down()
    house.trouble()
    house.announce()
    (house.state.root / "outbox/gone.abc.json").write_text(
        (next((house.state.root / "outbox").glob("hook.*"))).read_text()
    )
    (house.state.root / "outbox/hook.broken.json").write_text("{")
    house.clock.later(days=6)
    house.announce()
    assert {one.channel for one in Outbox(house.state).waiting()} == {"hook"}
    house.clock.later(days=2)
    receiver.up()
    house.announce()
    assert receiver.received == []


def test_a_dead_mans_switch_hears_the_state_at_each_run(
    tmp_path: Path, receivers: Callable[[], Receiver]
) -> None:
    receiver = receivers()
    house = House(tmp_path / "state", [webhook(receiver, kind=Kind.HEALTHCHECKS)])
    house.announce()
    house.trouble()
    house.announce()
    house.over()
    assert [one.path for one in receiver.received] == [f"/{SECRET}", f"/{SECRET}/fail", f"/{SECRET}"]
    # A ping that is lost now and then is no trouble, three in a row are.
    receiver.down()
    told = []
    for _ in range(3):
        house.clock.later(minutes=16)
        told += house.announce()
    assert told == ["alerts.hook"]


def test_alertmanager_is_told_again_and_of_the_end(tmp_path: Path, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    house = House(tmp_path / "state", [webhook(receiver, kind=Kind.ALERTMANAGER)])
    house.announce()
    assert receiver.received == []
    house.trouble()
    house.announce()
    house.clock.later(minutes=3)
    house.announce()
    house.over()
    house.announce()
    sent = [one.json for one in receiver.received]
    for one in sent:
        vendors.alertmanager(one)
    assert [len(one) for one in sent] == [1, 1, 1]
    ends = [datetime.fromisoformat(one[0]["endsAt"]) for one in sent]
    assert ends == [NOW + timedelta(hours=1), NOW + timedelta(hours=1, minutes=3), NOW + timedelta(minutes=3)]


# --- the command line ------------------------------------------------------------------------------------


def run(config: str, tmp_path: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "the.toml").write_text(config)
    common = ["--config", str(tmp_path / "the.toml"), "--state-dir", str(tmp_path / "state")]
    return subprocess.run(
        [sys.executable, "-m", "stapleguard", *common, *argv],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "hook"), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_alert_test_sends_through_each_and_reports_each(
    tmp_path: Path, receivers: Callable[[], Receiver]
) -> None:
    taken, refusing = receivers(), receivers()
    refusing.status = 404
    facts = tmp_path / "facts"
    (tmp_path / "secret").write_text(f"{taken.url}/{SECRET}")
    (tmp_path / "secret").chmod(0o600)
    config = f"""
[alerts]
host = "web1"
[alerts.slack]
kind = "slack"
url = {{ file = "{tmp_path}/secret" }}
[alerts.pager]
kind = "pagerduty"
url = "{refusing.url}"
token = {{ env = "KEY" }}
[alerts.own]
kind = "command"
command = ["/bin/dd", "status=none", "of={facts}"]
[alerts.lacking]
kind = "ntfy"
url = {{ env = "NOT_SET" }}
[alerts.more]
kind = "apprise"
url = {{ env = "MORE" }}
"""
    more = f"json://127.0.0.1:{taken.port}/{SECRET}"
    done = run(config, tmp_path, "alert", "test", "--json", KEY="k" * 32, MORE=more)
    said = {one["channel"]: one for one in json.loads(done.stdout)["channels"]}
    assert done.returncode == 3
    assert {name: one["taken"] for name, one in said.items()} == {
        "slack": True, "pager": False, "own": True, "lacking": False, "more": True,
    }  # fmt: skip
    assert "404" in said["pager"]["problem"]
    assert "NOT_SET" in said["lacking"]["problem"]
    vendors.slack(next(one.json for one in taken.received if "blocks" in one.json))
    assert json.loads(facts.read_text())["event"] == "test"
    assert any("title" in one.json for one in taken.received), "Apprise's own shape"
    for text in (done.stdout, done.stderr, str(Path("/proc/self/cmdline").read_text())):
        assert SECRET not in text
        assert "k" * 32 not in text
    alone = run(config, tmp_path, "alert", "test", "own")
    assert (alone.returncode, alone.stdout) == (0, "own (command): taken\n")


@pytest.mark.parametrize(
    ("config", "argv", "said"),
    [("", ("test",), "no alert channel is configured"), ("", ("unit",), "which unit has failed"),
     ("[alerts.x]\nkind='command'\ncommand=['/bin/true']", ("test", "y"), "no alert channel is called y")],
)  # fmt: skip
def test_wrong_usage(tmp_path: Path, config: str, argv: tuple[str, ...], said: str) -> None:
    done = run(config, tmp_path, "alert", *argv)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_failed_unit_reaches_a_person_though_a_channel_fails(
    tmp_path: Path, receivers: Callable[[], Receiver]
) -> None:
    receiver = receivers()
    config = (
        f'[alerts.hook]\nkind = "webhook"\nurl = "{receiver.url}"\n'
        '[alerts.own]\nkind = "command"\ncommand = ["/bin/false"]\n'
    )
    monitor = {"MONITOR_SERVICE_RESULT": "timeout", "MONITOR_EXIT_STATUS": "TERM"}
    done = run(config, tmp_path, "alert", "unit", "x.service", "--json", **monitor)
    assert (done.returncode, json.loads(done.stdout)["told"]) == (0, ["x.service", "alerts.own"])
    assert events(receiver) == [("trouble", "x.service"), ("trouble", "alerts.own")]
    again = run(config, tmp_path, "alert", "unit", "x.service", "--json", **monitor)
    assert json.loads(again.stdout)["told"] == []
    # A configuration that cannot be read sends nothing, and is no reason to fail.
    broken = run("nonsense", tmp_path, "alert", "unit", "y.service", "--json", **monitor)
    assert (broken.returncode, json.loads(broken.stdout)["told"]) == (0, ["y.service"])
    assert "no channel is used" in broken.stderr
