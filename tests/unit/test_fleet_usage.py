"""Wrong usage of `check` and `exporter` ends with words, before anything is looked at."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from stapleguard.cli import main
from stapleguard.cli.arguments import parser
from stapleguard.inventory import Form

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """`main` takes two signals over; pytest wants its own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--file", "nowhere"], "cannot read nowhere"),
        (["--file", "/dev/null"], "names no endpoint"),
        (["--json", "--jsonl", "a:1"], "exclude each other"),
        (["--watch", "1", "--jsonl", "a:1"], "exclude each other"),
        (["--metrics", "/x/y.prom", "127.0.0.1:1"], "cannot write metrics"),
        (["--metrics", "/tmp/y.txt", "127.0.0.1:1"], "cannot write metrics"),
        (["--format", "yaml", "127.0.0.1:1"], "no such form"),
        (["--sni", "a b", "127.0.0.1:1"], "not a server name"),
    ],
)
def test_wrong_usage_ends_before_anything_is_looked_at(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--state-dir", str(tmp_path), "check", *words]
    for plugin, status in ((), 2), (("--nagios",), 3):
        with pytest.raises(SystemExit) as ended:
            main([*common, *plugin])
        told = capsys.readouterr()
        assert ended.value.code == status
        assert says in told.err
        assert "stapleguard: hint: " in told.err
        assert told.out.startswith("STAPLEGUARD UNKNOWN - ") if plugin else told.out == ""


def test_the_screen_needs_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--state-dir", str(tmp_path), "check", "--watch", "1", "127.0.0.1:1"])
    assert (ended.value.code, "--watch needs a terminal" in capsys.readouterr().err) == (2, True)


def test_an_inventory_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin").write_bytes(b"m\xfcnchen.test\n")
    with pytest.raises(SystemExit) as ended:
        main(["--state-dir", str(tmp_path), "check", "--file", str(tmp_path / "latin")])
    assert (ended.value.code, "is not UTF-8 (byte 1)" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    "listen", ["localhost:1", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:x", "[::1:1", "192.0.2.1:1"]
)
def test_the_exporter_listens_on_an_address_of_this_host(
    listen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--state-dir", str(tmp_path), "exporter", "--listen", listen])
    assert ended.value.code == 2
    assert "stapleguard: hint: " in capsys.readouterr().err


def test_the_help_names_every_form() -> None:
    [check] = [one.choices["check"] for one in parser()._actions if isinstance(one.choices, dict)]
    [about] = [one.help for one in check._actions if one.dest == "format"]
    assert about.partition(": ")[2].replace(" or", ",").split(", ") == [one.value for one in Form]
