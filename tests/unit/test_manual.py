"""The manual page says what the parser knows, and those who render it have nothing to say."""

from __future__ import annotations

import subprocess

import pytest
from lab.tools import require
from stapleguard.cli.arguments import parser
from stapleguard.cli.manual import commands, page

pytestmark = pytest.mark.unit


def test_every_command_and_option_is_in_the_page() -> None:
    text = page().replace("\\-", "-")
    for name, _, one in commands(parser()):
        assert f".SS {name}\n" in text
        for action in one._actions:
            assert all(word in text for word in action.option_strings if action.dest != "help")
    assert not [line for line in text.splitlines() if line.startswith("'")]


def test_groff_has_nothing_to_say() -> None:
    require("groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=page(), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "send a test message through" in " ".join(done.stdout.split())


def mandoc(text: str) -> str:
    argv = ["mandoc", "-Tlint", "-Wwarning"]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False).stdout


def test_mandoc_has_no_warning() -> None:
    require("mandoc")
    assert mandoc(page()) == ""
    assert "FROB" in mandoc(page().replace(".SH NAME", ".SH NAME\n.FROB", 1))


def test_man_renders_it() -> None:
    require("man")
    argv = ["man", "--warnings", "-l", "-"]
    done = subprocess.run(argv, input=page(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "STAPLEGUARD(1)" in done.stdout
