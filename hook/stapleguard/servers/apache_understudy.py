"""A private Apache for one generation: the modules, TLS and stapling lines in force, with other files.

Of the modules only those that a handshake needs are loaded: others may start programs, or write where the
real server does. Without an SSLStaplingCache in the configuration there is none here either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from stapleguard.model import StapleguardError
from stapleguard.servers.apache_config import INCLUDE_NAME, Config, Scope, Written
from stapleguard.servers.lines import is_published
from stapleguard.servers.words import Account, Instance, Site, Stage, Understudy

_MODULES: Final = ("mpm_", "ssl_module", "socache_", "authz_core_module", "unixd_module")
_MAIN: Final = frozenset({"user", "group", "sslrandomseed", "sslcryptodevice", "sslfips"})
_KEPT: Final = frozenset(
    {
        "sslcacertificatefile", "sslcacertificatepath", "sslcarevocationcheck", "sslcarevocationfile",
        "sslcarevocationpath", "sslcertificatechainfile", "sslcertificatefile", "sslcertificatekeyfile",
        "sslciphersuite", "sslengine", "sslhonorcipherorder", "sslinsecurerenegotiation",
        "sslocspproxyurl", "sslopensslconfcmd", "sslprotocol", "sslsessiontickets",
        "sslstaplingerrorcachetimeout", "sslstaplingfaketrylater", "sslstaplingforceurl",
        "sslstaplingrespondertimeout", "sslstaplingresponsemaxage", "sslstaplingresponsetimeskew",
        "sslstaplingreturnrespondererrors", "sslstaplingstandardcachetimeout", "sslusestapling",
        "sslverifyclient", "sslverifydepth",
    }
)  # fmt: skip
_CACHES: Final = ("shmcb", "dbm")
"""Those that can be had a second time; a cache on the network would be the real server's own."""


def compose(
    instance: Instance, stage: Stage, config: Config, environment: Mapping[str, str]
) -> Understudy | None:
    """Write its configuration; None where mod_md staples, or the stapling cache is one for all hosts."""
    cache = config.main.first("sslstaplingcache").partition(":")[0].lower()
    by_place = {one.where or "main server": one for one in (*config.hosts, config.main)}
    scopes = [by_place.get(site.where) for site in stage.sites]
    found = [one for one in scopes if one is not None and not config.managed(one)]
    if not found or len(found) < len(scopes) or (cache and cache not in _CACHES):
        return None
    match stage.account:
        case Account.SERVER:
            pass
        case Account.OURS:
            raise StapleguardError("Apache that is started by root has to become another user, and may not")
    name, log = f"{stage.directory}/apache.conf", f"{stage.directory}/error.log"
    lines = [*_lines(stage, config, cache, log, found)]
    options = ("-f", name)
    return Understudy(
        replace(instance, config=name, arguments=options, master=None),
        (instance.binary, "-D", "FOREGROUND", *options),
        {"apache.conf": "".join(f"{text}\n" for text, _ in lines)},
        (log,),
        environment,
        {f"{name}:{number}": where for number, (_, where) in enumerate(lines, 1) if where},
    )


def _lines(
    stage: Stage, config: Config, cache: str, log: str, scopes: Sequence[Scope]
) -> Iterator[tuple[str, str]]:
    """Yield each line, and where what it says really stands."""
    root = config.main.first("serverroot")
    if root:
        yield f"ServerRoot {_word(root)}", ""
    yield "ServerName localhost", ""
    yield f"DefaultRuntimeDir {_word(stage.directory)}", ""
    yield f"PidFile {_word(f'{stage.directory}/pid')}", ""
    yield "Mutex pthread", ""  # leaves nothing behind, whatever ends it
    for one in config.main.written:
        if one.name == "loadmodule" and one.words and one.words[0].startswith(_MODULES):
            yield f"LoadModule {' '.join(map(_word, one.words))}", one.where
    yield f"ErrorLog {_word(log)}", ""
    yield "LogLevel info", ""
    yield "StartServers 1", ""
    yield "ServerLimit 1", ""
    if cache:
        where = config.main.places["sslstaplingcache"]
        size = "(512000)" if cache == "shmcb" else ""
        yield f'SSLStaplingCache "{cache}:{stage.directory}/stapling{size}"', where
    yield from _written(config.main.written, _MAIN | _KEPT - {"sslcertificatefile", "sslcertificatekeyfile"})
    for scope, site, port in zip(scopes, stage.sites, stage.ports, strict=True):
        yield from _host(scope, site, port, stage)


def _host(scope: Scope, site: Site, port: int, stage: Stage) -> Iterator[tuple[str, str]]:
    yield f"Listen 127.0.0.1:{port}", ""
    yield f"<VirtualHost 127.0.0.1:{port}>", site.where
    # What the published include says counts where it stands: lines after it go before it.
    before = [*_until_ours(scope.written, stage.live)]
    yield from _written(before, _KEPT)
    yield f"Include {_word(f'{stage.candidate}/{INCLUDE_NAME}')}", ""
    after = [
        one for one in scope.written[len(before) :] if not is_published(one.where, INCLUDE_NAME, stage.live)
    ]
    yield from _written(after, _KEPT)
    yield "</VirtualHost>", ""


def _until_ours(written: Sequence[Written], live: str) -> Iterator[Written]:
    for one in written:
        if is_published(one.where, INCLUDE_NAME, live):
            return
        yield one


def _written(written: Sequence[Written], names: frozenset[str]) -> Iterator[tuple[str, str]]:
    for one in written:
        if one.name in names:
            yield f"{one.name} {' '.join(map(_word, one.words))}", one.where


def _word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
