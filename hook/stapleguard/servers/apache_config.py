"""Apache configuration files: virtual hosts with TLS, what is in force in each, and the stapling cache.

Read as httpd reads them: continued lines, Define and the environment in `${NAME}`, Include with wildcards
and directories, IfDefine by what was defined. IfModule and IfVersion are read as if they held.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import realpath
from pathlib import Path
from typing import Final

from stapleguard.model import StapleguardError
from stapleguard.servers.words import Site

INCLUDE_NAME: Final = "apache.conf"

_DEPTH: Final = 32
_HTTPS: Final = 443
_VARIABLE: Final = re.compile(r"\$\{([^}]+)\}")
_WILD: Final = re.compile(r"[*?\[]")
_DEBIAN_MD: Final = "/var/lib/apache2/md"
"""Where Debian's mod_md keeps its certificates; elsewhere it is `md` below the server's root."""
_NO_NAMES: Final = frozenset({"auto", "manual"})
"""Words of an MDomain line that are settings."""
_OPEN: Final = re.compile(r"<(\w+)\s*(.*?)>?\s*$")


@dataclass
class Scope:
    """The directives of one virtual host, or of the main server, each by its lower-case name."""

    where: str
    addresses: tuple[str, ...] = ()
    directives: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    guards: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[tuple[str, ...]]:
        """Return the arguments of each such directive here."""
        return self.directives.get(name, [])

    def first(self, name: str) -> str:
        """Return the first argument of the last such directive here, '' without any."""
        given = [words for words in self.all(name) if words]
        return given[-1][0] if given else ""

    def has(self, name: str, value: str) -> bool:
        """Whether such a directive here has this value."""
        return self.first(name).lower() == value


@dataclass(frozen=True, slots=True)
class Config:
    """Everything read: the main server and its virtual hosts."""

    main: Scope
    hosts: tuple[Scope, ...]

    def value(self, scope: Scope, name: str) -> str:
        """Return what is in force in a scope."""
        return scope.first(name) or self.main.first(name)

    @property
    def cached(self) -> bool:
        """Whether there is a stapling cache, without which nothing starts that staples."""
        return bool(self.main.first("sslstaplingcache"))

    def managed(self, scope: Scope) -> bool:
        """Whether mod_md staples here, which then goes before mod_ssl."""
        others = self.value(scope, "mdstapleothers").lower() != "off"
        return self.value(scope, "mdstapling").lower() == "on" and (others or bool(self.domain(scope)))

    def domain(self, scope: Scope) -> str:
        """Return the managed domain of mod_md that a scope gets its certificate from, '' without one."""
        if scope.first("sslcertificatefile") or scope.guards or not scope.has("sslengine", "on"):
            return ""
        domains = [[word for word in words if word not in _NO_NAMES] for words in self.main.all("mdomain")]
        return next((words[0] for words in domains if not {*_names(scope)}.isdisjoint(words)), "")


class _Reader:
    def __init__(self, root: str, defined: Sequence[str], environment: Mapping[str, str], live: str) -> None:
        self.root = root
        self.defined = {*defined}
        self.values = dict(environment)
        self.live = live
        self.main = Scope("")
        self.scope = self.main
        self.hosts: list[Scope] = []
        self.skipped = 0
        """How deep we are within a condition that does not hold, or a section that is not of the server."""

    def read(self, path: Path, depth: int = 0) -> None:
        """Read a file where it takes effect."""
        try:
            text = path.read_text("utf-8", "replace")
        except PermissionError:
            raise StapleguardError(f"cannot read {path}: permission denied", "run this as root") from None
        except OSError:
            return  # as ours before the first deploy; the server's own test tells of others
        if depth > _DEPTH:
            return
        number, held = 0, ""
        for line in text.splitlines():
            number += 1
            if line.endswith("\\"):
                held += line[:-1] + " "
                continue
            self._line((held + line).strip(), f"{path}:{number}", depth)
            held = ""

    def _line(self, text: str, where: str, depth: int) -> None:
        if not text or text.startswith("#"):
            return
        if text.startswith("</"):
            self._close(text[2:].rstrip("> ").lower())
        elif text.startswith("<"):
            self._open(text, where)
        elif not self.skipped:
            self._directive(text, depth)

    def _open(self, text: str, where: str) -> None:
        match = _OPEN.match(text)
        name, rest = (match[1].lower(), match[2]) if match else ("", "")
        if self.skipped:
            self.skipped += 1
        elif name == "virtualhost":
            self.scope = Scope(where, tuple(self._words(rest)))
            self.hosts.append(self.scope)
        elif name == "ifdefine":
            wanted = rest.strip()
            holds = (wanted.lstrip("!") in self.defined) is not wanted.startswith("!")
            self.skipped = 0 if holds else 1
        elif name in ("ifmodule", "iffile", "ifdirective", "ifsection"):
            self.skipped = 1 if rest.strip().startswith("!") else 0
        elif name != "ifversion":
            if name in ("mdomain", "mdomainset"):
                self.main.directives.setdefault("mdomain", []).append(tuple(self._words(rest)))
            self.skipped = 1  # Directory, Location, Files, If: not of the server as a whole

    def _close(self, name: str) -> None:
        if self.skipped:
            self.skipped -= 1
        elif name == "virtualhost":
            self.scope = self.main

    def _directive(self, text: str, depth: int) -> None:
        name, *words = self._words(text) or [""]
        name = name.lower()
        if name in ("include", "includeoptional") and words:
            for path in self._included(words[0]):
                self.read(path, depth + 1)
        elif name == "define" and words:
            self.defined.add(words[0])
            self.values[words[0]] = words[1] if len(words) > 1 else ""
        elif name == "undefine" and words:
            self.defined.discard(words[0])
        elif name == "serverroot" and words:
            self.root = words[0]
        elif name:
            self.scope.directives.setdefault(name, []).append(tuple(words))

    def _words(self, text: str) -> list[str]:
        known = _VARIABLE.sub(lambda match: self.values.get(match[1], match[0]), text)
        try:
            return shlex.split(known)
        except ValueError:
            return known.split()

    def _included(self, pattern: str) -> list[Path]:
        path = Path(self.root, pattern)
        if path.name == INCLUDE_NAME and realpath(path.parent.parent) == self.live:
            self.scope.guards.append(path.parent.name)
        if _WILD.search(str(path)):
            return sorted(one for one in Path("/").glob(str(path).lstrip("/")) if one.is_file())
        if path.is_dir():
            return sorted(one for one in path.rglob("*") if one.is_file())
        return [path]


def load(
    config: str, root: str, defined: Sequence[str], environment: Mapping[str, str], state_dir: str
) -> Config:
    """Read the main configuration file and all that it includes."""
    reader = _Reader(root, defined, environment, realpath(f"{state_dir}/live"))
    reader.read(Path(config))
    return Config(reader.main, tuple(reader.hosts))


def sites(config: Config, root: str) -> tuple[Site, ...]:
    """Make a site of every virtual host with TLS, and of the main server where it has it."""
    found = [
        _site(scope, config, config.main.first("serverroot") or root)
        for scope in (*config.hosts, config.main)
        if scope.guards or scope.first("sslcertificatefile") or config.domain(scope)
    ]
    return tuple(found)


def _names(scope: Scope) -> tuple[str, ...]:
    given = [*scope.all("servername")[-1:], *scope.all("serveralias")]
    return tuple(_hostname(word) for words in given for word in words)


def _site(scope: Scope, config: Config, root: str) -> Site:
    trusted = config.value(scope, "sslcacertificatefile")
    domain = config.domain(scope)
    given = [words[0] for words in scope.all("sslcertificatefile") if words]
    return Site(
        names=_names(scope),
        listens=tuple(dict.fromkeys(_listens(scope, config))),
        certificates=_kept(config, root, domain) if domain else tuple(str(Path(root, one)) for one in given),
        variable=False,
        stapling=config.managed(scope) or config.value(scope, "sslusestapling").lower() == "on",
        staple_file=None,
        trusted=str(Path(root, trusted)) if trusted else None,
        resolvers=(),
        where=scope.where or "main server",
        guards=tuple(dict.fromkeys(scope.guards)),
        verifies_clients=config.value(scope, "sslverifyclient").lower() not in ("", "none"),
        keeper="mod_md" if domain else "",
    )


def _kept(config: Config, root: str, domain: str) -> tuple[str, ...]:
    """List the certificates that mod_md keeps of a managed domain; one for each type of key."""
    given = config.main.first("mdstoredir")
    usual = _DEBIAN_MD if Path(_DEBIAN_MD).is_dir() else "md"
    folder = Path(root, given or usual, "domains", domain)
    return tuple(sorted(map(str, folder.glob("pubcert*.pem"))))


def _hostname(word: str) -> str:
    return re.sub(r"^\w+://|:\d+$", "", word)


def _listens(scope: Scope, config: Config) -> Iterator[tuple[str, int]]:
    """Yield where a client of this host can connect: an address of `*` is one that Listen has."""
    given = [words for words in config.main.all("listen") if words]
    opened = [_split(words[0]) for words in given]
    # Without a port of its own a host is on every one, but TLS is spoken on some only.
    secure = {_split(words[0])[1] for words in given if words[1:] == ("https",)} | {_HTTPS}
    spoken = [one for one in opened if one[1] in secure] or opened
    for text in scope.addresses or ("*",):
        host, port = _split(text) if ":" in text else (text, None)
        anywhere = host in ("*", "_default_", "")
        for bound, number in opened if port else spoken:
            if number is None or port not in (None, number, 0):
                continue
            if anywhere:
                yield _reachable(bound), number
            elif bound in ("", "*", "0.0.0.0", "::", host):  # noqa: S104 - read, not bound
                yield host, number


def _split(text: str) -> tuple[str, int | None]:
    host, _, port = text.rpartition(":")
    if port == "*":
        return host.strip("[]"), None
    return host.strip("[]"), int(port) if port.isdigit() else None


def _reachable(bound: str) -> str:
    match bound:
        case "" | "*" | "0.0.0.0":  # noqa: S104 - read, not bound
            return "127.0.0.1"
        case "::":
            return "::1"
        case _:
            return bound
