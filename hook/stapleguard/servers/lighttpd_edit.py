"""One socket or host of lighttpd, from certificate lines to the one include, where each has its own line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from stapleguard.servers import lighttpd, lighttpd_config
from stapleguard.servers.edit import (
    Left,
    Plan,
    Refusal,
    Wanted,
    file_by_file,
    lines_of,
    only_lineage,
    replaced,
)
from stapleguard.servers.words import Instance

_CERTIFICATE: Final = "ssl.pemfile"
_BROUGHT: Final = (_CERTIFICATE, "ssl.privkey", "ssl.stapling-file")
_CHAIN: Final = "ssl.ca-file"
"""The issuers of the certificate, and those of clients where these are asked for theirs."""


def plan(instance: Instance, wanted: Sequence[Wanted]) -> Plan:
    """Plan the include of each block; see `edit.Editor`."""
    places = lighttpd_config.places(instance.config, "/nonexistent")
    known = {found[_CERTIFICATE]: found for found in places.values() if _CERTIFICATE in found}

    def change(path: str, text: str, group: Sequence[Wanted]) -> str | Refusal:
        del path
        one = only_lineage(group)
        if isinstance(one, Refusal):
            return one
        chain = () if one.site.verifies_clients else (_CHAIN,)
        return use_include(text, _lines((*_BROUGHT, *chain), known[one.site.where]), lighttpd.line(one.live))

    # A block begins in one file, and its certificate may stand in another that it includes.
    there = {one.site.where: places.get(one.site.where, {}).get(_CERTIFICATE) for one in wanted}
    moved = [(one, there[one.site.where]) for one in wanted]
    made = file_by_file([replace(one, site=replace(one.site, where=at)) for one, at in moved if at], change)
    lost = (Left(one.site.where, Refusal("it is not understood"), (one,)) for one, at in moved if not at)
    return replace(made, left=(*made.left, *lost))


def _lines(names: Sequence[str], places: Mapping[str, str]) -> dict[str, int]:
    """Return the line of each directive; 0 for one that stands in another file than the certificate."""
    file = places[_CERTIFICATE].rpartition(":")[0]
    split = {name: places[name].rpartition(":") for name in names if name in places}
    return {name: int(line) if at == file else 0 for name, (at, _, line) in split.items()}


def use_include(text: str, lines: Mapping[str, int], include: str) -> str | Refusal:
    """Put an include in the place of directives, given by their lines (from 1)."""
    every = lines_of(text)
    for name, number in lines.items():
        if not number:
            return Refusal(f"its {name} stands in another file than its certificate")
        whole = every[number - 1] if number <= len(every) else ""
        if not re.fullmatch(rf"\s*{re.escape(name)}\s*:?=\s*\"[^\"]*\"[ \t]*(#[^\n]*)?\r?\n?", whole):
            return Refusal(f"line {number} holds more than {name}")
    return replaced(text, [lines[_CERTIFICATE], *lines.values()], include)
