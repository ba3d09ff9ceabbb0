"""Completion as a person has it: each shell runs on a terminal, and a key is pressed."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from lab.tools import require
from stapleguard.cli import completion
from stapleguard.cli.arguments import parser
from stapleguard.cli.completion import Value, _program

pytestmark = pytest.mark.unit

_SECONDS = 30.0
_READY = "ready> "
# What the shell ran, word by word; the name is that of the program.
_SHOW = "stapleguard() { printf '%s' '<'; printf '%s|' \"$@\"; printf '>\\n'; }"


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.seen = ""

    def until(self, text: str) -> str:
        """Read until the shell has written this; return everything before."""
        end = monotonic() + _SECONDS
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())


@contextmanager
def shell(*argv: str, setup: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    # No line of ours may come back as an echo before the shell reads it.
    environment = {
        "PATH": os.environ["PATH"],
        "TERM": "dumb",
        "PS1": "",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
    }
    child = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True, close_fds=True
    )
    os.close(slave)
    try:
        terminal = Terminal(master)
        terminal.send(f"{setup}\n")
        terminal.until(_READY)
        yield terminal
    finally:
        child.kill()
        child.wait()
        os.close(master)


@contextmanager
def bash(folder: Path) -> Iterator[Terminal]:
    file = folder / "stapleguard"
    file.write_text(completion.bash())
    # Split in two, so that its own echo is not taken for the prompt.
    setup = f"bind 'set bell-style none'; {_SHOW}; . {shlex.quote(str(file))}; PS1='rea''dy> '"
    with shell("bash", "--norc", "--noprofile", "-i", setup=setup) as terminal:
        yield terminal


@contextmanager
def zsh(folder: Path) -> Iterator[Terminal]:
    (folder / "_stapleguard").write_text(completion.zsh())
    setup = (
        f"unsetopt beep prompt_cr prompt_sp; fpath=({shlex.quote(str(folder))} $fpath); "
        f"autoload -U compinit; compinit -u -D; {_SHOW}; PS1='rea''dy> '"
    )
    with shell("zsh", "-f", "-i", setup=setup) as terminal:
        yield terminal


TYPED = [
    ("ho\t --cl\t mod\t installed", "<hook|--client|mod_md|installed|>"),
    ("ocsp ver\t --res\t x.der", "<ocsp|verify|--response|x.der|>"),
    ("--config /x al\t te\t", "<--config|/x|alert|test|>"),
    ("explain server.not-g\t", "<explain|server.not-guarded|>"),
    ("check --ca-file {folder}/the-an\t a:1", "<check|--ca-file|{folder}/the-anchors.pem|a:1|>"),
    ("frobnicate x", "<frobnicate|x|>"),
]


@pytest.mark.parametrize("which", ["bash", "zsh"])
def test_a_shell_completes_on_its_terminal(which: str, tmp_path: Path) -> None:
    require(which)
    (tmp_path / "the-anchors.pem").touch()
    with {"bash": bash, "zsh": zsh}[which](tmp_path) as terminal:
        for typed, ran in TYPED:
            terminal.send(f"stapleguard {typed.format(folder=tmp_path)}\n")
            terminal.until(ran.format(folder=tmp_path))
            terminal.until(_READY)


def test_bash_shows_what_there_is(tmp_path: Path) -> None:
    require("bash")
    with bash(tmp_path) as terminal:
        terminal.send("stapleguard setup --\t\t")
        shown = terminal.until("--yes")
    assert {"--write", "--undo"} <= {*shown.split()}
    assert "--client" not in shown


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("ho", {"hook"}, {"check"}),
        ("hook --cl", {"--client"}, {"--write"}),
        ("hook --client ", {"mod_md", "certbot"}, {"hook"}),
        ("ocsp ", {"fetch", "verify"}, {"hook"}),
        ("ocsp verify --re", {"--response"}, {"--url"}),
        ("alert ", {"test", "unit"}, {"hook"}),
        ("explain server.not-", {"server.not-guarded"}, {"served.expired"}),
    ],
)
def test_fish_completes(line: str, offered: set[str], not_offered: set[str], tmp_path: Path) -> None:
    require("fish")
    file = tmp_path / "stapleguard.fish"
    file.write_text(completion.fish())
    script = f"source {file}; complete -C {shlex.quote(f'stapleguard {line}')}"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    found = {one.partition("\t")[0] for one in done.stdout.splitlines()}
    assert done.stderr == ""
    assert offered <= found
    assert not not_offered & found


def test_every_option_means_the_same_to_every_command() -> None:
    """The value of an option is completed by its name alone, so no two commands may differ in it."""
    top, found = _program()
    values: dict[str, set[Value]] = {}
    for one in (top, *found):
        for option in one.options:
            for each in option.spellings:
                values.setdefault(each, set()).add(option.value)
    assert {each for each, kinds in values.items() if len(kinds) > 1} == set()
    assert {one.name for one in found} >= {"hook", "ocsp verify"}
    assert parser().prog == "stapleguard"
