"""A real Alertmanager takes our alerts, and ends them when we say so."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.net import accepts
from lab.process import until
from lab.receiver import Receiver
from lab.tools import executable, require
from stapleguard.alerts import send
from stapleguard.channels import Channel, Kind, Reference, Source
from stapleguard.cli.telling import Teller, announce, book, deliver, well
from stapleguard.config import Config
from stapleguard.disk import StateDirectory
from stapleguard.host import SystemClock
from stapleguard.notice import probe
from stapleguard.trouble import crashed

pytestmark = pytest.mark.server


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    require("prometheus-alertmanager")
    with Receiver() as free, Receiver() as sink:
        free.down()
        config = tmp_path / "alertmanager.yml"
        config.write_text(
            "route: {receiver: sink, group_wait: 1s}\n"
            f"receivers: [{{name: sink, webhook_configs: [{{url: '{sink.url}'}}]}}]\n"
        )
        program = str(executable("prometheus-alertmanager"))
        argv = [program, f"--config.file={config}", f"--storage.path={tmp_path}", "--cluster.listen-address="]
        with (tmp_path / "log").open("wb") as log:
            child = subprocess.Popen(
                [*argv, f"--web.listen-address=127.0.0.1:{free.port}"], stdout=log, stderr=log
            )
        try:
            until(lambda: accepts("127.0.0.1", free.port), "Alertmanager")
            yield free.url
        finally:
            child.terminate()
            child.wait(10)


def active(url: str) -> list[Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/v2/alerts?active=true", timeout=5) as answer:
        read: list[Any] = json.load(answer)
    return read


def test_it_takes_repeats_and_ends(alertmanager: str, tmp_path: Path) -> None:
    channel = Channel("am", Kind.ALERTMANAGER, Reference(Source.LITERAL, alertmanager))
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    teller = Teller(state, Config(channels={"am": channel}, alert_host="web1"), SystemClock())
    with book(state) as lent:
        hostile = 'a"b{{ .Labels }}<script>'
        lent[0] = crashed(lent[0], "a.test", "signal KILL", teller.clock.now(), {"message": hostile})
    announce(teller, "x.service")
    announce(teller, "x.service")
    until(lambda: len(active(alertmanager)) == 1, "one alert")
    (alert,) = active(alertmanager)
    assert alert["labels"] == {
        "alertname": "StapleguardTrouble", "instance": "web1", "name": "a.test", "severity": "error",
    }  # fmt: skip
    assert hostile in alert["annotations"]["description"]
    well(teller, "a.test")
    deliver(teller)
    until(lambda: active(alertmanager) == [], "the end of the alert")


def test_the_test_message_ends_by_itself(alertmanager: str) -> None:
    channel = Channel("am", Kind.ALERTMANAGER, Reference(Source.LITERAL, f"{alertmanager}/"))
    assert send(channel, probe("web1", SystemClock().now()), {}).taken
    until(lambda: len(active(alertmanager)) == 1, "the alert")
    (alert,) = active(alertmanager)
    assert alert["labels"]["severity"] == "info"
    ends = time.strptime(alert["endsAt"][:19], "%Y-%m-%dT%H:%M:%S")
    assert abs(time.mktime(ends) - time.mktime(time.gmtime()) - 60) < 10


def test_it_refuses_what_is_wrong(alertmanager: str) -> None:
    channel = Channel("am", Kind.ALERTMANAGER, Reference(Source.LITERAL, alertmanager))
    wrong = replace(channel, url=Reference(Source.LITERAL, f"{alertmanager}/no/such"))
    assert "404" in send(wrong, probe("web1", SystemClock().now()), {}).problem
