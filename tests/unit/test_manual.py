"""The manual page and the completion say what the parser knows, and man and bash take them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab.tools import require
from stapleguard.cli.arguments import parser
from stapleguard.cli.manual import commands, completion, page

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


@pytest.mark.parametrize(
    ("words", "wanted", "unwanted"),
    [
        (["stapleguard", "de"], {"deploy"}, {"check"}),
        (["stapleguard", "--config", "/x", "ho"], {"hook"}, {"deploy"}),
        (["stapleguard", "alert", ""], {"test", "unit", "--json"}, {"deploy"}),
        (["stapleguard", "setup", "--"], {"--write", "--undo", "--yes"}, {"--client"}),
        (["stapleguard", "ocsp", ""], {"fetch", "verify"}, {"deploy"}),
        (["stapleguard", "ocsp", "verify", "--re"], {"--response"}, {"--url"}),
    ],
)
def test_bash_completes(words: list[str], wanted: set[str], unwanted: set[str], tmp_path: Path) -> None:
    file = tmp_path / "completion"
    file.write_text(completion())
    words_are = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))'
    script = f'source {file}; {words_are}; _stapleguard; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    offered = set(done.stdout.split())
    assert done.stderr == ""
    assert wanted <= offered
    assert not unwanted & offered
