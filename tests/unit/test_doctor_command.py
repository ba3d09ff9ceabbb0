"""`doctor` from the outside where nothing is broken but the question, and how a diagnosis is told."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from looked import NOW, good
from stapleguard.diagnosis import Result
from stapleguard.finding import Code, find
from stapleguard.model import Severity, Verdict
from stapleguard.report import diagnosis

pytestmark = pytest.mark.unit


def doctor(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stapleguard", "--state-dir", str(directory / "state"), "doctor", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_where_nobody_listens_nothing_could_be_observed(tmp_path: Path) -> None:
    done = doctor(tmp_path, f"127.0.0.1:{closed_port()}", "--json")
    document: Any = json.loads(done.stdout)
    assert (done.returncode, document["exit"], document["verdict"]) == (7, 7, "inconclusive")
    assert document["schema"] == "stapleguard.doctor/1"
    assert document["cause"] == "served.unreachable"


def test_a_wrong_question_is_wrong_usage(tmp_path: Path) -> None:
    assert doctor(tmp_path).returncode == 2
    assert doctor(tmp_path, "nobody-knows-this").returncode == 2
    assert doctor(tmp_path, "127.0.0.1:1", "--bundle", f"{tmp_path}/no/such/file").returncode == 2


def result(*findings: Any) -> Result:
    extra = {
        "verify": "stapleguard doctor a.test:443",
        "unseen": [{"what": "the log", "why": "unreadable", "takes": "root"}],
    }
    return Result("doctor", Verdict.DEGRADED, Code.NET_BLOCKED, findings, (good(),), extra)


CAUSE = find(
    Code.NET_BLOCKED,
    "http://o.test/",
    "no connection",
    remedy="(1) Let it out. (2) `a command of many words that must never be broken in two`.",
    evidence={"supports": ["GET: nothing"], "would_refute": ["an answer"]},
)
OTHER = find(Code.STAPLE_ABSENT, "a.test", "a.test sends no staple", severity=Severity.WARNING)


def test_the_cause_comes_first_then_the_rest_then_what_was_not_seen() -> None:
    text = diagnosis.as_text(result(OTHER, CAUSE), io.StringIO())
    order = [
        "cause      net.blocked",
        "seen       GET: nothing",
        "refuted by an answer",
        "fix        (1) Let",
    ]
    order += [
        "then       `stapleguard doctor",
        "also seen",
        "staple.absent",
        "not looked at",
        "the log: unreadable",
    ]
    places = [text.index(one) for one in order]
    assert places == sorted(places)
    assert "`a command of many words that must never be broken in two`" in text
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("  www."))


def test_hostile_words_move_no_cursor() -> None:
    hostile = find(Code.NET_BLOCKED, "x", "a\x1b[2Jb", evidence={"supports": ["c\x1b]0;d\x07"]})
    assert "\x1b" not in diagnosis.as_text(result(hostile), io.StringIO())


def test_a_bundle_holds_no_password() -> None:
    secret = find(
        Code.NET_REFUSED, "http://user:sesame@proxy.test:3128", "http://user:sesame@proxy.test refuses"
    )
    text = diagnosis.bundle(result(CAUSE, secret), NOW)
    assert "sesame" not in text
    assert json.loads(text)["findings"][1]["subject"] == "http://***@proxy.test:3128"
