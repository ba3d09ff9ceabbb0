"""One server block of nginx, from certificate lines to the one include; only where every line is understood.

Pure: the text of a file in, the text after the change or the reason against it out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_PAIR: Final = ("ssl_certificate", "ssl_certificate_key")
_BROUGHT: Final = frozenset({*_PAIR, "ssl_stapling", "ssl_stapling_file", "ssl_stapling_verify"})
"""Directives that the include brings itself: beside it they would be duplicates."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One directive that stands in a server block itself: its name, line (from 1) and arguments."""

    name: str
    line: int
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a block is left alone."""

    reason: str


def use_include(text: str, statements: Sequence[Statement], include: str) -> str | Refusal:
    """Put an include in the place of a block's certificate and stapling lines."""
    counts = {name: [one for one in statements if one.name == name] for name in _PAIR}
    if any(not found for found in counts.values()):
        return Refusal("its certificate comes from an included file or from the level above")
    if any(len(found) > 1 for found in counts.values()):
        return Refusal("it has certificates of several key types")
    if any("$" in word for found in counts.values() for one in found for word in one.arguments):
        return Refusal("its certificate is a variable")
    gone = [one for one in statements if one.name in _BROUGHT]
    verifies = any(one.name == "ssl_verify_client" and one.arguments != ("off",) for one in statements)
    if not verifies:
        gone += [one for one in statements if one.name == "ssl_trusted_certificate"]
    lines = text.splitlines(keepends=True)
    for one in gone:
        if not _alone(lines, one):
            return Refusal(f"line {one.line} holds more than {one.name}")
    first = counts["ssl_certificate"][0].line
    drop = {one.line for one in gone} - {first}
    return "".join(
        _replaced(line, include) if number == first else line
        for number, line in enumerate(lines, 1)
        if number not in drop
    )


def _alone(lines: Sequence[str], one: Statement) -> bool:
    """Whether a directive has its line for itself, but for a comment."""
    if not 0 < one.line <= len(lines):
        return False
    return re.fullmatch(rf"\s*{one.name}\s[^;{{}}#]*;[ \t]*(#[^\n]*)?\r?\n?", lines[one.line - 1]) is not None


def _replaced(line: str, include: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    end = line[len(line.rstrip("\r\n")) :]
    return f"{indent}include {include};{end}"
