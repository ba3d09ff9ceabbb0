"""lighttpd configuration files: which sockets and hosts present certificates, and from where.

Read as lighttpd merges them: a condition within a condition, the innermost value wins. Strings are joined
with `+`, variables are `var.NAME` and `env.NAME`; what a command would print (include_shell) is not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os.path import realpath
from pathlib import Path
from typing import Final

from stapleguard.model import StapleguardError
from stapleguard.servers.words import Site

INCLUDE_NAME: Final = "lighttpd.conf"

_DEPTH: Final = 16
_TOKEN: Final = re.compile(
    r"""
    (?P<blank>\s+|\#[^\n]*)
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<condition>\$[A-Z]+\["[^"]+"\])
    |(?P<word>[A-Za-z0-9_.\-/:]+)
    |(?P<sign>=>|\+=|:=|==|!=|=~|!~|=\^|=\$|[{}(),=+])
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass
class _Block:
    """The directives of one condition; `guards` are the lineages that it includes from generations of ours.

    `places` has FILE:LINE of each directive.
    """

    where: str
    kind: str = ""
    value: str = ""
    parent: _Block | None = None
    values: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    guards: list[str] = field(default_factory=list)
    test: tuple[str, str] = ("", "")

    def get(self, name: str) -> str:
        """Return the value in force."""
        block: _Block | None = self
        while block is not None:
            if name in block.values:
                return block.values[name]
            block = block.parent
        return ""

    def place(self, name: str) -> str:
        """Return where that stands which is in force."""
        block: _Block | None = self
        while block is not None and name not in block.values:
            block = block.parent
        return block.places.get(name, "") if block is not None else ""

    def strange(self, name: str) -> bool:
        """Whether what would be inherited belongs to the certificate of another block."""
        return name == "ssl.stapling-file" and "ssl.pemfile" in self.values and name not in self.values

    def holds(self, text: str) -> bool:
        """Whether its condition holds for a text."""
        sign, value = self.test
        match sign:
            case "==":
                return text == value
            case "!=":
                return text != value
            case "=^":
                return text.startswith(value)
            case "=$":
                return text.endswith(value)
            case "=~" | "!~":
                with suppress(re.error):
                    return (re.search(value, text) is not None) is (sign == "=~")
        return False

    def is_in(self, kind: str) -> _Block | None:
        """Return the innermost condition of a kind that this one is in."""
        block: _Block | None = self
        while block is not None and block.kind != kind:
            block = block.parent
        return block


class _Reader:
    def __init__(self, config: str, state_dir: str) -> None:
        self.config = config
        self.live = realpath(f"{state_dir}/live")
        self.root = _Block(config)
        self.blocks = [self.root]
        self.variables: dict[str, str] = {}
        self.files: list[str] = []

    def read(self, path: Path, block: _Block, depth: int = 0) -> None:
        """Read a file into a block; a missing one is passed over, as ours is before the first deploy."""
        try:
            text = path.read_text("utf-8", "replace")
        except PermissionError:
            raise StapleguardError(f"cannot read {path}: permission denied", "run this as root") from None
        except OSError:
            return
        if depth < _DEPTH:
            self.files.append(str(path))
            self._statements(list(_tokens(text, str(path))), block, depth)

    def _statements(self, tokens: list[tuple[str, str, str]], block: _Block, depth: int) -> None:
        while tokens:
            kind, text, where = tokens.pop(0)
            if text == "}":
                if block.parent is not None:
                    block = block.parent
            elif kind == "condition":
                block = self._condition(tokens, text, where, block)
            elif kind == "word" and text == "include":
                self._include(self._value(tokens), block, depth)
            elif kind == "word" and tokens and tokens[0][1] in ("=", "+=", ":="):
                tokens.pop(0)
                value = self._value(tokens)
                if text.startswith("var."):
                    self.variables[text] = value
                block.values[text] = value
                block.places[text] = where

    def _condition(self, tokens: list[tuple[str, str, str]], text: str, where: str, block: _Block) -> _Block:
        sign, value = (tokens.pop(0)[1] if tokens else ""), self._value(tokens)
        inner = _Block(where, text, value if sign == "==" else "", block, test=(sign, value))
        self.blocks.append(inner)
        while tokens and tokens.pop(0)[1] != "{":
            pass
        return inner

    def _include(self, value: str, block: _Block, depth: int) -> None:
        given = Path(self.config).parent / value
        if given.name == INCLUDE_NAME and realpath(given.parent.parent) == self.live:
            block.guards.append(given.parent.name)
        pattern = str(given)
        matches = sorted(Path("/").glob(pattern.lstrip("/"))) if re.search(r"[*?\[]", pattern) else [given]
        for path in matches:
            self.read(path, block, depth + 1)

    def _value(self, tokens: list[tuple[str, str, str]]) -> str:
        """Read a string; of a list only that it is one."""
        parts: list[str] = []
        if tokens and tokens[0][1] == "(":
            level = 0
            while tokens:
                sign = tokens.pop(0)[1]
                level += {"(": 1, ")": -1}.get(sign, 0)
                if level == 0:
                    return ""
        while tokens:
            kind, text, _ = tokens[0]
            if kind == "text":
                parts.append(re.sub(r"\\(.)", r"\1", text[1:-1]))
            elif kind == "word":
                parts.append(_variable(text, self.variables))
            else:
                break
            tokens.pop(0)
            if not (tokens and tokens[0][1] == "+"):
                break
            tokens.pop(0)
        return "".join(parts)


def _variable(word: str, variables: Mapping[str, str]) -> str:
    if word.startswith("env."):
        return os.environ.get(word.removeprefix("env."), "")
    return variables.get(word, word)


def _tokens(text: str, path: str) -> Iterator[tuple[str, str, str]]:
    number = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup not in ("blank", None):
            yield str(match.lastgroup), match[0], f"{path}:{number}"
        number += match[0].count("\n")


def sites(config: str, state_dir: str) -> tuple[Site, ...]:
    """Read every block that presents certificates, or includes our lines, on a socket with TLS."""
    reader = _Reader(config, state_dir)
    reader.read(Path(config), reader.root)
    found = (_site(block, reader) for block in reader.blocks)
    return tuple(site for site in found if site is not None)


@dataclass(frozen=True, slots=True)
class Presented:
    """What answers at one place: each directive asked for, as (value, FILE:LINE); ('', '') without any."""

    where: str
    directives: Mapping[str, tuple[str, str]]


def presented(config: str, address: str, port: int, name: str, wanted: Sequence[str]) -> Presented | None:
    """Find the block that answers a name at an address, and what is in force there."""
    reader = _Reader(config, "/nonexistent")
    reader.read(Path(config), reader.root)
    with_pem = [block for block in reader.blocks if "ssl.pemfile" in block.values]
    places = [(block, {*_listens(block, reader)}) for block in with_pem]
    here = [block for block, found in places if (address, port) in found]
    # An address that no socket names is one of every address.
    here = here or [block for block, found in places if port in {number for _, number in found}]
    hosts = [(block, block.is_in('$HTTP["host"]')) for block in here]
    mine = [block for block, host in hosts if host is not None and name and host.holds(name)]
    plain = [block for block, host in hosts if host is None]
    # Of several that hold, what comes later counts.
    chosen = next(reversed([*plain, *mine]), None)
    if chosen is None:
        return None
    held = (one for one in wanted if not chosen.strange(one))
    given = {one: (chosen.get(one), chosen.place(one)) for one in held}
    return Presented(chosen.where, dict.fromkeys(wanted, ("", "")) | given)


def files(config: str) -> tuple[str, ...]:
    """Every file that the configuration is made of."""
    reader = _Reader(config, "/nonexistent")
    reader.read(Path(config), reader.root)
    return tuple(dict.fromkeys(reader.files))


def places(config: str, state_dir: str) -> dict[str, dict[str, str]]:
    """Return where each directive of a block stands (FILE:LINE), by the `where` of its site."""
    reader = _Reader(config, state_dir)
    reader.read(Path(config), reader.root)
    return {block.where: block.places for block in reader.blocks}


def error_log(config: str) -> str | None:
    """Return the value of server.errorlog, None when it is not a file."""
    reader = _Reader(config, "/nonexistent")
    reader.read(Path(config), reader.root)
    return reader.root.values.get("server.errorlog") or None


def _site(block: _Block, reader: _Reader) -> Site | None:
    pem = block.values.get("ssl.pemfile")
    if not pem and not block.guards:
        return None
    host = block.is_in('$HTTP["host"]') or block.is_in('$HTTP["scheme"]')
    staple = "" if block.strange("ssl.stapling-file") else block.get("ssl.stapling-file")
    return Site(
        names=(host.value,) if host is not None and host.value else (),
        listens=tuple(dict.fromkeys(_listens(block, reader))),
        certificates=(pem,) if pem else (),
        variable=False,
        stapling=bool(staple),
        staple_file=staple or None,
        trusted=None,
        resolvers=(),
        where=block.where,
        guards=tuple(dict.fromkeys(block.guards)),
        verifies_clients=block.get("ssl.verifyclient.activate") == "enable",
    )


def _listens(block: _Block, reader: _Reader) -> Iterator[tuple[str, int]]:
    """Yield the sockets with TLS that a block is for: its own, or all that turn it on."""
    socket = block.is_in('$SERVER["socket"]')
    sockets = [socket] if socket else [one for one in reader.blocks if one.kind == '$SERVER["socket"]']
    for one in sockets:
        if one.get("ssl.engine") == "enable":
            yield from _place(one.value, reader.root)
    if socket is None and reader.root.values.get("ssl.engine") == "enable":
        port = reader.root.values.get("server.port", "80")
        yield from _place(f"{reader.root.values.get('server.bind', '')}:{port}", reader.root)


def _place(text: str, root: _Block) -> Iterator[tuple[str, int]]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        host, port = text, root.values.get("server.port", "443")
    if text.startswith("/") or not port.isdigit():
        return
    match host.strip("[]"):
        case "" | "*" | "0.0.0.0":  # noqa: S104 - read, not bound
            yield "127.0.0.1", int(port)
        case "::":
            yield "::1", int(port)
        case plain:
            yield plain, int(port)
