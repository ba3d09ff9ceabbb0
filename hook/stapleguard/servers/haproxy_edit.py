"""A `bind` line of HAProxy, or a crt-list of somebody's, from copies of certificates to our generations.

HAProxy takes the first certificate that it was given for a name, and for any other client the first of all
(measured on 2.6 and 2.8). Where our place in that order could not be that of the copy, a person must decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from stapleguard.disk import read_bounded
from stapleguard.finding import Finding
from stapleguard.servers import haproxy, haproxy_config
from stapleguard.servers.edit import Edit, Left, Plan, Refusal, Wanted, file_by_file, lines_of
from stapleguard.servers.haproxy_config import Option
from stapleguard.servers.words import Instance

_QUOTED: Final = re.compile(r"[\"'\\]")
_ENTRY: Final = re.compile(r"(\s*)([^\s#\[]+)(.*)", re.DOTALL)


def plan(instance: Instance, wanted: Sequence[Wanted]) -> Plan:
    """Plan the step of each bind line and of each crt-list that a bind line names; see `edit.Editor`."""
    configs = haproxy.configs(instance)
    named, base = haproxy_config.named(configs), haproxy_config.base_of(configs)

    def change(_path: str, text: str, group: Sequence[Wanted]) -> str | Refusal:
        options = named.get(group[0].site.where, ())
        owned = {path: one.live for one in group for path in one.certificates}
        held = {
            path: haproxy_config.names_in(path)
            for one in options
            if one.name == "crt"
            for path in one.certificates
        }
        return use_lists(text, group[0].line, options, owned, held)

    direct: list[Wanted] = []
    listed: dict[str, list[Wanted]] = {}
    for one in wanted:
        for option in named.get(one.site.where, ()):
            there = tuple(path for path in one.certificates if path in option.certificates)
            if there and option.name == "crt-list":
                listed.setdefault(str(option.path), []).append(replace(one, certificates=there))
            elif there:
                direct.append(replace(one, certificates=there))
    made = file_by_file(direct, change)
    edits, left = [*made.edits], [*made.left]
    for path, group in listed.items():
        edit = _list(path, base, group)
        edits += [edit] if isinstance(edit, Edit) else []
        left += [Left(path, edit, tuple(group))] if isinstance(edit, Refusal) else []
    return Plan(tuple(edits), tuple(left))


def use_lists(
    text: str,
    line: int,
    options: Sequence[Option],
    owned: Mapping[str, str],
    names: Mapping[str, frozenset[str]],
) -> str | Refusal:
    """Let a bind line name our crt-lists in the place of copies.

    `owned` are the copies, each with the link to its generation; `names` are those in every certificate that
    the line names by itself.
    """
    lines = lines_of(text)
    whole = lines[line - 1] if 0 < line <= len(lines) else ""
    words, sign, comment = whole.partition("#")
    if not re.match(r"\s*bind\s", words):
        return Refusal("it is not understood")
    if _QUOTED.search(words):
        return Refusal("it has quotes or backslashes")
    for position, option in enumerate(options):
        mine = [path for path in option.certificates if path in owned]
        if option.name != "crt" or not mine:
            continue
        lists = " ".join(dict.fromkeys(f"crt-list {owned[path]}/{haproxy.INCLUDE}" for path in mine))
        if option.path.is_dir():
            strict = "strict-sni" in words.split()
            if reason := _reordered(option, mine, names, default=position == 0 and not strict):
                return Refusal(reason, f"move {' and '.join(mine)} out of it and write {lists} behind it")
            lists = f"{lists} crt {option.value}"
        words, count = re.subn(rf"(?<!\S)crt\s+{re.escape(option.value)}(?!\S)", lists, words, count=1)
        if not count:
            return Refusal("it is not understood")
    lines[line - 1] = f"{words}{sign}{comment}"
    return "".join(lines)


def _reordered(
    option: Option, mine: Sequence[str], names: Mapping[str, frozenset[str]], *, default: bool
) -> str:
    """Say what other clients would get when ours came before a whole directory; '' when nothing changes."""
    if default and option.certificates[0] not in mine:
        return f"clients that ask for no known name get {option.certificates[0]} now, and would get ours"
    for position, path in enumerate(option.certificates):
        if path in mine:
            continue
        for later in option.certificates[position + 1 :]:
            shared = names[path] & names[later] if later in mine else frozenset()
            if shared:
                return f"{path} comes before {later} for {', '.join(sorted(shared))}"
    return ""


def use_bundles(text: str, base: str, owned: Mapping[str, str]) -> str:
    """Let the entries of a crt-list name our bundles in the place of copies; options and filters stay."""
    return "".join(_entry(line, base, owned) for line in lines_of(text))


def _entry(line: str, base: str, owned: Mapping[str, str]) -> str:
    found = _ENTRY.fullmatch(line)
    live = owned.get(str(Path(base, found[2]))) if found else None
    return f"{found[1]}{live}/bundle.pem{found[3]}" if found and live else line


def _list(path: str, base: str, group: Sequence[Wanted]) -> Edit | Refusal:
    data = read_bounded(Path(path))
    if isinstance(data, Finding):
        return Refusal(data.message)
    owned = {file: one.live for one in group for file in one.certificates}
    changed = use_bundles(data.decode("utf-8", "surrogateescape"), base, owned)
    after = changed.encode("utf-8", "surrogateescape")
    if after == data:
        hand = " and ".join(f"{live}/bundle.pem in the place of {file}" for file, live in owned.items())
        return Refusal("its entries are not understood", hand)
    return Edit(path, after, tuple(sorted({one.lineage for one in group})))
