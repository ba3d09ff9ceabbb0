"""One server block of nginx, from certificate lines to the one include, where every line is understood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import crossplane

from stapleguard.servers import nginx
from stapleguard.servers.edit import (
    Plan,
    Refusal,
    Wanted,
    file_by_file,
    lines_of,
    only_lineage,
    removed,
    replaced,
)
from stapleguard.servers.words import Instance

_PAIR: Final = ("ssl_certificate", "ssl_certificate_key")
_BROUGHT: Final = frozenset({*_PAIR, "ssl_stapling", "ssl_stapling_file", "ssl_stapling_verify"})
"""Directives that the include brings itself: beside it they would be duplicates."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One directive that stands in a server block itself: its name, line (from 1) and arguments."""

    name: str
    line: int
    arguments: tuple[str, ...]


def plan(instance: Instance, wanted: Sequence[Wanted]) -> Plan:
    """Plan the include of each server block; see `edit.Editor`."""
    del instance
    return file_by_file(wanted, _change)


def _change(path: str, text: str, group: Sequence[Wanted]) -> str | Refusal:
    one = only_lineage(group)
    if isinstance(one, Refusal):
        return one
    statements = _blocks(path).get(one.line)
    if statements is None:
        return Refusal("it is not understood")
    return use_include(text, statements, nginx.line(one.live))


def _blocks(path: str) -> dict[int, tuple[Statement, ...]]:
    """Return what stands in each server block of a file itself, by the line of the block."""
    payload = crossplane.parse(
        path, single=True, catch_errors=True, strict=False, check_ctx=False, check_args=False
    )
    found: dict[int, tuple[Statement, ...]] = {}
    # A file of sites-enabled begins with the server blocks, nginx.conf has them in its http block.
    waiting = [one for file in payload["config"] for one in file["parsed"]]
    while waiting:
        one = waiting.pop()
        inner = one.get("block", [])
        if one["directive"] == "server":
            found[one["line"]] = tuple(
                Statement(each["directive"], each["line"], tuple(each["args"])) for each in inner
            )
        waiting += inner
    return found


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
    lines = lines_of(text)
    for one in gone:
        if not _alone(lines, one):
            return Refusal(f"line {one.line} holds more than {one.name}")
    first = counts["ssl_certificate"][0].line
    numbers = [first, *(one.line for one in gone)]
    there = any(f"{one.name} {' '.join(one.arguments)};" == include for one in statements)
    # `certbot --nginx`, run again, has put its lines beside ours.
    return removed(text, numbers) if there else replaced(text, numbers, include)


def _alone(lines: Sequence[str], one: Statement) -> bool:
    """Whether a directive has its line for itself, but for a comment."""
    if not 0 < one.line <= len(lines):
        return False
    return re.fullmatch(rf"\s*{one.name}\s[^;{{}}#]*;[ \t]*(#[^\n]*)?\r?\n?", lines[one.line - 1]) is not None
