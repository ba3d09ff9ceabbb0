"""nginx configuration files, read as nginx reads them: includes, inheritance, relative paths.

Relative paths of includes and certificates start at the directory of the main configuration file
(ngx_conf_full_name with conf_prefix); crossplane tokenises, the meaning is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import realpath
from pathlib import PurePosixPath
from typing import Final, NotRequired, TypedDict

import crossplane

from stapleguard.model import StapleguardError
from stapleguard.servers.words import Site

INCLUDE_NAME: Final = "nginx.conf"

_CONTEXTS: Final = frozenset({"http", "stream", "mail"})
_LISTEN: Final = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:\[\]]+):)?(?P<first>\d+)(?:-(?P<last>\d+))?")
_DEFAULT_PORT: Final = 80
# Parameters of a resolver line that are not addresses.
_RESOLVER_PARAMETER: Final = re.compile(r"(?:valid|ipv4|ipv6|status_zone)=")


class _Statement(TypedDict):
    directive: str
    line: int
    args: list[str]
    block: NotRequired[list[_Statement]]
    includes: NotRequired[list[int]]


class _File(TypedDict):
    file: str
    parsed: list[_Statement]


class _Payload(TypedDict):
    config: list[_File]


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive where it takes effect; what an include brought in follows it at the same level."""

    name: str
    arguments: tuple[str, ...]
    where: str
    block: tuple[Directive, ...] = ()
    included: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Listen:
    """One TCP address of a server block: `key` as nginx tells sockets apart, `addresses` to connect to."""

    key: tuple[str, int]
    addresses: tuple[str, ...]
    tls: bool


def sites(config: str, state_dir: str) -> tuple[Site, ...]:
    """Read every server block that presents certificates, in the order of the files.

    `config` is the absolute path of the main file. A missing include is passed over, as ours is
    before the first deploy; a file that may not be read raises StapleguardError, since what it hides
    could be the very site that is asked for.
    """
    found: list[Site] = []
    for context in _load(config):
        if context.name not in _CONTEXTS:
            continue
        servers = [one for one in context.block if one.name == "server"]
        listens = [_listens(server, context) for server in servers]
        # TLS belongs to the socket: one block that says `ssl` says it for all that share the address.
        tls = {listen.key for several in listens for listen in several if listen.tls}
        for server, several in zip(servers, listens, strict=True):
            mine = tuple(listen for listen in several if listen.key in tls)
            if mine:
                found.append(_site(server, context, mine, config, state_dir))
    return tuple(site for site in found if site.certificates or site.variable or site.guards)


@dataclass(frozen=True, slots=True)
class ServerBlock:
    """One server block; `names` in lower case but for expressions.

    `listens` are (address, '*' or '[::]', port).
    """

    names: tuple[str, ...]
    listens: tuple[tuple[str, int], ...]
    default: bool
    where: str
    _server: Directive
    _context: Directive

    def value(self, name: str) -> Directive | None:
        """Return the directive in force, of the innermost level that has one."""
        return next(iter(self.values(name)), None)

    @property
    def own(self) -> tuple[Directive, ...]:
        """What stands in the block itself, includes resolved."""
        return self._server.block

    @property
    def around(self) -> tuple[Directive, ...]:
        """What stands beside it and is inherited."""
        return self._context.block

    @property
    def context(self) -> str:
        """http, stream or mail."""
        return self._context.name

    def values(self, name: str) -> tuple[Directive, ...]:
        """Return all of them, where a directive may be repeated."""
        for level in (self._server, self._context):
            given = tuple(one for one in level.block if one.name == name)
            if given:
                return given
        return ()


def blocks(config: str) -> tuple[ServerBlock, ...]:
    """List every server block, in the order of the files."""
    found: list[ServerBlock] = []
    for context in _load(config):
        for server in context.block if context.name in _CONTEXTS else ():
            if server.name != "server":
                continue
            pairs = (one.key for one in _listens(server, context))
            listens = [one.arguments for one in server.block if one.name == "listen"]
            names = (word for one in server.block if one.name == "server_name" for word in one.arguments)
            found.append(
                ServerBlock(
                    tuple(word if word.startswith("~") else word.lower() for word in names),
                    tuple(dict.fromkeys(pairs)),
                    any({"default_server", "default"}.intersection(words) for words in listens),
                    server.where,
                    server,
                    context,
                )
            )
    return tuple(found)


def files(config: str) -> tuple[str, ...]:
    """Every file that the configuration is read from."""
    payload: _Payload = crossplane.parse(
        config, catch_errors=True, combine=False, strict=False, check_ctx=False, check_args=False
    )
    return tuple(dict.fromkeys(one["file"] for one in payload["config"]))


def absolute(path: str, config: str) -> str:
    """Return a path of the configuration as nginx takes it."""
    return _absolute(path, config)


def main_level(config: str) -> tuple[Directive, ...]:
    """List the directives outside of every block."""
    return tuple(one for one in _load(config) if not one.block)


def main_error_log(config: str) -> str | None:
    """Value of the first error_log of the main level, None when there is none.

    Stapling is logged there whatever a server block says: the fetch runs in nobody's name.
    """
    for directive in _load(config):
        if directive.name == "error_log" and directive.arguments:
            return directive.arguments[0]
    return None


def _site(
    server: Directive, context: Directive, listens: Sequence[_Listen], config: str, state_dir: str
) -> Site:
    def value(name: str) -> str | None:
        given = _effective(server, context, name)
        return given[0][0] if given and given[0] else None

    def path(name: str) -> str | None:
        text = value(name)
        return _absolute(text, config) if text else None

    certificates = [arguments[0] for arguments in _effective(server, context, "ssl_certificate") if arguments]
    fixed = [text for text in certificates if "$" not in text and not text.startswith("data:")]
    resolvers = [word for words in _effective(server, context, "resolver")[:1] for word in words]
    pairs = ((address, listen.key[1]) for listen in listens for address in listen.addresses)
    return Site(
        names=tuple(word for one in server.block if one.name == "server_name" for word in one.arguments),
        listens=tuple(dict.fromkeys(pairs)),
        certificates=tuple(_absolute(text, config) for text in fixed),
        variable=len(fixed) < len(certificates),
        stapling=value("ssl_stapling") == "on",
        staple_file=path("ssl_stapling_file"),
        trusted=path("ssl_trusted_certificate"),
        resolvers=tuple(word for word in resolvers if word != "off" and not _RESOLVER_PARAMETER.match(word)),
        where=server.where,
        guards=tuple(dict.fromkeys(_guards(server, config, state_dir))),
        verifies_clients=value("ssl_verify_client") not in {None, "off"},
    )


def _effective(server: Directive, context: Directive, name: str) -> list[tuple[str, ...]]:
    """Arguments of each such directive at the innermost level that has any: nginx never adds levels up."""
    for level in (server, context):
        given = [directive.arguments for directive in level.block if directive.name == name]
        if given:
            return given
    return []


def _listens(server: Directive, context: Directive) -> tuple[_Listen, ...]:
    # `ssl on;` is older than `listen ... ssl` and gone since 1.25.1.
    everywhere = frozenset({"ssl"} if _effective(server, context, "ssl")[:1] == [("on",)] else ())
    given = [one.arguments for one in server.block if one.name == "listen" and one.arguments]
    given = given or [(f"*:{_DEFAULT_PORT}",)]
    return tuple(
        listen
        for arguments in given
        if "quic" not in arguments
        for listen in _listen(arguments[0], everywhere.union(arguments[1:]))
    )


def _listen(address: str, flags: frozenset[str]) -> Iterator[_Listen]:
    """Read one listen directive; a range of ports is several sockets."""
    tls = "ssl" in flags
    if address.startswith("unix:"):
        yield _Listen((address, 0), (), tls)
        return
    parts = _LISTEN.fullmatch(address)
    host = (parts["host"] if parts else address) or "*"
    first = int(parts["first"]) if parts else _DEFAULT_PORT
    last = int(parts["last"]) if parts and parts["last"] else first
    connect: tuple[str, ...]
    match host:
        case "*" | "0.0.0.0":  # noqa: S104 - read, not bound
            host, connect = "*", ("127.0.0.1",)
        case "[::]":
            connect = ("::1", "127.0.0.1") if "ipv6only=off" in flags else ("::1",)
        case _:
            connect = (host.strip("[]"),)
    if "proxy_protocol" in flags:
        connect = ()
    for port in range(first, last + 1):
        yield _Listen((host, port), connect, tls)


def _guards(server: Directive, config: str, state_dir: str) -> Iterator[str]:
    """Lineages whose LIVE/NAME/nginx.conf the block includes; NAME is a link and must stay unresolved."""
    live = realpath(f"{state_dir}/live")
    for directive in server.block:
        if directive.name != "include" or not directive.arguments:
            continue
        for path in (_absolute(directive.arguments[0], config), *directive.included):
            file = PurePosixPath(path)
            named = file.name == INCLUDE_NAME and not re.search(r"[*?\[]", file.parent.name)
            if named and realpath(file.parent.parent) == live:
                yield file.parent.name


def _absolute(path: str, config: str) -> str:
    # As text, like nginx: `..` after a link means what the kernel makes of it.
    return str(PurePosixPath(config).parent / path)


def _load(config: str) -> tuple[Directive, ...]:
    """Parse all files into the directives of the main level."""
    failures: list[Exception] = []
    payload: _Payload = crossplane.parse(
        config,
        onerror=failures.append,
        catch_errors=True,
        combine=False,
        strict=False,
        check_ctx=False,
        check_args=False,
    )
    files = payload["config"]
    for failure in failures:
        if isinstance(failure, PermissionError):
            raise StapleguardError(f"cannot read {failure.filename}: permission denied", "run this as root")
    if failures and not files[0]["parsed"]:
        raise StapleguardError(f"cannot read {config}: {failures[0]}", "nginx -t says more")
    return tuple(_flatten(files, 0, files[0]["parsed"], frozenset({0})))


def _flatten(
    files: Sequence[_File], index: int, statements: Sequence[_Statement], open_files: frozenset[int]
) -> Iterator[Directive]:
    for statement in statements:
        included = [i for i in statement.get("includes", ()) if i not in open_files]
        yield Directive(
            statement["directive"],
            tuple(statement["args"]),
            f"{files[index]['file']}:{statement['line']}",
            tuple(_flatten(files, index, statement.get("block", ()), open_files)),
            tuple(files[i]["file"] for i in included),
        )
        for inner in included:
            yield from _flatten(files, inner, files[inner]["parsed"], open_files | {inner})
