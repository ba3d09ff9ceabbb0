"""HAProxy configuration files: where certificates are bound, and where its control socket is.

Sections and keywords are read as HAProxy's own tokeniser reads a line: words, quotes, backslashes, and
comments. Conditional blocks (`.if`) are read as if they held; names of crt-list entries are not needed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os.path import realpath
from pathlib import Path
from typing import Final

from stapleguard import material
from stapleguard.disk import read_bounded
from stapleguard.finding import Finding
from stapleguard.model import StapleguardError
from stapleguard.servers.words import Site

LIST_NAME: Final = "haproxy.crtlist"

_SECTIONS: Final = frozenset(
    {
        "global", "defaults", "frontend", "backend", "listen", "userlist", "peers", "mailers", "resolvers",
        "cache", "program", "http-errors", "ring", "log-forward", "fcgi-app", "crt-store", "traces", "acme",
    }
)  # fmt: skip
_BOUND: Final = frozenset({"frontend", "listen"})
_BESIDE: Final = frozenset({".ocsp", ".issuer", ".key", ".sctl"})
_FIRST_UPDATING: Final = (2, 8)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a section, with FILE:LINE; `title` is the section's own name."""

    section: str
    title: str
    words: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate of a `bind` line: its path, the options between brackets, the names that choose it."""

    path: str
    options: tuple[str, ...]
    names: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Bound:
    """One `bind` line with its certificates."""

    where: str
    entries: tuple[Entry, ...]


def sites(configs: Sequence[str], state_dir: str) -> tuple[Site, ...]:
    """Read every `bind` line with `ssl` that names certificates."""
    every = tuple(lines(configs))
    base = _base(every)
    found = (_site(one, base, state_dir) for one in every if one.section in _BOUND and one.words[0] == "bind")
    return tuple(site for site in found if site is not None)


def admin_sockets(configs: Sequence[str]) -> tuple[str, ...]:
    """List the paths of the `stats socket` lines of level admin."""
    found: list[str] = []
    for one in lines(configs):
        if one.section == "global" and one.words[:2] == ("stats", "socket") and len(one.words) > 2:
            options = one.words[3:]
            level = options[options.index("level") + 1 :][:1] if "level" in options else ()
            path = one.words[2].removeprefix("unix@")
            if level == ("admin",) and path.startswith("/"):
                found.append(path)
    return tuple(found)


def may_update(version: str) -> bool:
    """Whether it asks responders by itself (`ocsp-update`)."""
    parts = version.split(".")
    return all(part.isdigit() for part in parts[:2]) and tuple(map(int, parts[:2])) >= _FIRST_UPDATING


def bound(configs: Sequence[str], address: str, port: int) -> Bound | None:
    """Find the `bind` line with certificates that listens at an address, the exact one before the others."""
    every = tuple(lines(configs))
    base = _base(every)
    binds = [
        one
        for one in every
        if one.section in _BOUND and one.words[0] == "bind" and len(one.words) > 1 and "ssl" in one.words[2:]
    ]
    for exact in (True, False):
        for one in binds:
            for host, number in _listens(one.words[1]):
                if number == port and (host == address or not exact):
                    return Bound(one.where, tuple(_entries(one, base)))
    return None


def _entries(line: Line, base: str) -> Iterator[Entry]:
    for option, value in pairwise(line.words):
        if option == "crt":
            for path in _certificates(Path(base, value), option, base):
                yield Entry(path, line.words, (), line.where)
        elif option == "crt-list":
            for number, text in enumerate(_read(Path(value)).splitlines(), 1):
                inside, around = _bracketed(text)
                if around:
                    yield Entry(str(Path(base, around[0])), inside, around[1:], f"{value}:{number}")


def _bracketed(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a line of a crt-list into its options and the other words."""
    before, opened, rest = text.partition("[")
    if not opened or before.lstrip().startswith("#"):
        return (), _words(text)
    inside, _, after = rest.partition("]")
    return _words(inside), (*_words(before), *_words(after))


def value_of(configs: Sequence[str], keyword: str) -> tuple[tuple[str, ...], str]:
    """Return the words of a global line behind its keyword, and where it stands; nothing without one."""
    for one in lines(configs):
        if one.section == "global" and one.words[0] == keyword:
            return one.words[1:], one.where
    return (), ""


def files(configs: Sequence[str]) -> tuple[str, ...]:
    """Every file that the configuration is made of, with its lists of certificates."""
    found = [str(path) for config in configs for path in _files(config)]
    for one in lines(configs):
        found += [value for option, value in pairwise(one.words) if option == "crt-list"]
    return tuple(dict.fromkeys(found))


def _base(every: Sequence[Line]) -> str:
    return next((one.words[1] for one in every if one.words[0] == "crt-base" and len(one.words) > 1), "")


def lines(configs: Sequence[str]) -> Iterator[Line]:
    """Read every line that is in a section."""
    for config in configs:
        for path in _files(config):
            section = title = ""
            for number, text in enumerate(_read(path).splitlines(), 1):
                words = _words(text)
                if not words:
                    continue
                if words[0] in _SECTIONS:
                    section, title = words[0], words[1] if len(words) > 1 else ""
                else:
                    yield Line(section, title, words, f"{path}:{number}")


def _files(config: str) -> list[Path]:
    path = Path(config)
    return sorted(path.glob("*.cfg")) if path.is_dir() else [path]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except PermissionError:
        raise StapleguardError(f"cannot read {path}: permission denied", "run this as root") from None
    except OSError:
        return ""


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text, comments=True))
    except ValueError:  # a quote that is not closed: HAProxy refuses the file anyway
        return tuple(text.split())


@dataclass(frozen=True, slots=True)
class Option:
    """One `crt` or `crt-list` of a `bind` line; `certificates` are the paths that it brings, in order."""

    name: str
    value: str
    path: Path
    certificates: tuple[str, ...]


def named(configs: Sequence[str]) -> dict[str, tuple[Option, ...]]:
    """Return what each `bind` line names, by FILE:LINE."""
    every = tuple(lines(configs))
    base = _base(every)
    return {one.where: tuple(_options(one, base)) for one in every if one.words[0] == "bind"}


def base_of(configs: Sequence[str]) -> str:
    """Return the directory that relative paths of certificates start at, '' without one."""
    return _base(tuple(lines(configs)))


def _options(line: Line, base: str) -> Iterator[Option]:
    for name, value in pairwise(line.words):
        if name in ("crt", "crt-list"):
            path = Path(base, value) if name == "crt" else Path(value)
            yield Option(name, value, path, tuple(_certificates(path, name, base)))


def _site(line: Line, base: str, state_dir: str) -> Site | None:
    words = line.words
    if "ssl" not in words[2:]:
        return None
    options = tuple(_options(line, base))
    live = realpath(f"{state_dir}/live")
    lists = [
        one.path
        for one in options
        if one.name == "crt-list" and one.path.name == LIST_NAME and _is_in(one.path, live)
    ]
    # A list of ours names bundles of ours; where somebody else's does, or the line itself, that counts.
    others = (path for one in options if one.path not in lists for path in one.certificates)
    bundles = [
        Path(path) for path in others if Path(path).name.startswith("bundle") and _is_in(Path(path), live)
    ]
    listens = () if "accept-proxy" in words else tuple(_listens(words[1]))
    return Site(
        names=(),
        listens=listens,
        certificates=tuple(path for one in options for path in one.certificates),
        variable=False,
        stapling=True,
        staple_file=None,
        trusted=None,
        resolvers=(),
        where=line.where,
        guards=tuple(dict.fromkeys(path.parent.name for path in (*lists, *bundles))),
        verifies_clients="ca-file" in words,
        included=next((path.name for path in (*bundles, *lists)), ""),
    )


def _is_in(path: Path, live: str) -> bool:
    return realpath(path.parent.parent) == live


def _certificates(path: Path, option: str, base: str) -> list[str]:
    if option == "crt":
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        return [str(one) for one in inside if one.suffix not in _BESIDE and one.name[:1] != "."]
    entries = (_words(text) for text in _read(path).splitlines())
    return [str(Path(base, words[0])) for words in entries if words]


def _listens(addresses: str) -> Iterator[tuple[str, int]]:
    for text in addresses.split(","):
        family, _, rest = text.rpartition("@")
        if family not in ("", "ipv4", "ipv6") or rest.startswith("/"):
            continue
        host, _, ports = rest.rpartition(":")
        first, _, last = ports.partition("-")
        if not first.isdigit():
            continue
        match host.strip("[]"):
            case "" | "*" | "0.0.0.0":  # noqa: S104 - read, not bound
                host = "127.0.0.1"
            case "::":
                host = "::1"
            case plain:
                host = plain
        for port in range(int(first), int(last if last.isdigit() else first) + 1):
            yield host, port


def names_in(path: str) -> frozenset[str]:
    """Read the names in a PEM, whatever key stands beside them; none of a file without a certificate."""
    data = read_bounded(Path(path))
    leaf = None if isinstance(data, Finding) else material.leaf_in(data)
    if leaf is None:
        return frozenset()
    names = (*material.leaf_facts(leaf).names, *material.common_names(leaf))
    return frozenset(name.lower() for name in names)
