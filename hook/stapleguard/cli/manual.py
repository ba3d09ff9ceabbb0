"""The manual page, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

from stapleguard import __version__
from stapleguard.cli.arguments import parser
from stapleguard.model import ExitStatus

_DATE: Final = "2026-11-25"
"""Of the last change of form; man(7) wants one, and a page must not differ from day to day."""


def page() -> str:
    """Return stapleguard(1) for man(1), in man(7)."""
    top = parser()
    lines = [f'.TH STAPLEGUARD 1 {_DATE} "stapleguard {__version__}" "User Commands"']
    lines += [".SH NAME", f"stapleguard \\- {_text('finish a certificate renewal and prove it on the wire')}"]
    lines += [".SH SYNOPSIS", ".B stapleguard", _text("[OPTION]... COMMAND [ARGUMENT]...")]
    lines += [".SH DESCRIPTION", _text(top.description or ""), ".SH OPTIONS", *_options(top)]
    lines.append(".SH COMMANDS")
    for name, about, one in commands(top):
        lines += [f".SS {_text(name)}", _text(about), *_options(one)]
    lines.append(".SH EXIT STATUS")
    for status in ExitStatus:
        lines += [".TP", f".B {int(status)}", _text(status.name.lower().replace("_", " "))]
    lines += [".SH SEE ALSO", _text("journalctl(1), systemd.timer(5)")]
    return "\n".join(lines) + "\n"


def commands(
    top: argparse.ArgumentParser, prefix: str = ""
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield every command that takes arguments of its own, with what it is for."""
    for action in top._actions:  # noqa: SLF001 - there is no public way to a parser's arguments
        if not isinstance(action.choices, dict):
            continue
        for name, one in action.choices.items():
            deeper = [*commands(one, f"{prefix}{name} ")]
            yield from deeper or [(f"{prefix}{name}", " ".join((one.description or "").split()), one)]


def _options(one: argparse.ArgumentParser) -> Iterator[str]:
    for action in one._actions:  # noqa: SLF001 - as above
        if action.dest == "help" or isinstance(action.choices, dict):
            continue
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        words = ", ".join(action.option_strings)
        yield ".TP"
        yield f".B {_text(f'{words} {value}'.strip())}"
        yield _text((action.help or "").replace("%%", "%"))


def _text(text: str) -> str:
    r"""Escape for man(7): a backslash, a hyphen to be copied, a line that begins like a request."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
