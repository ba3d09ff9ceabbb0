"""A private HAProxy for one generation: the global TLS and fetching lines in force, and the `bind` lines.

Its crt-list names the candidate's files: the real one leads through live/NAME (decision 10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from os.path import realpath
from pathlib import Path
from typing import Final

from stapleguard.servers import haproxy_config
from stapleguard.servers.haproxy_config import LIST_NAME, Line
from stapleguard.servers.words import Account, Instance, Stage, Understudy

_GLOBAL: Final[tuple[str, ...]] = (
    "ca-base", "crt-base", "httpclient.", "issuers-chain-path", "ocsp-update.", "openssl-conf", "ssl-",
    "tune.ssl.",
)  # fmt: skip
_ACCOUNT: Final = ("user", "group", "uid", "gid", "chroot")
_WITH_VALUE: Final = frozenset(
    {
        "alpn", "ca-file", "ca-ignore-err", "ca-verify-file", "ciphers", "ciphersuites", "client-sigalgs",
        "crl-file", "crt-ignore-err", "curves", "ecdhe", "npn", "sigalgs", "ssl-max-ver", "ssl-min-ver",
        "verify",
    }
)  # fmt: skip
_FLAGS: Final = ("force-", "no-sslv3", "no-tls", "no-ca-names", "prefer-client-ciphers", "ssl")


def compose(instance: Instance, stage: Stage, configs: Sequence[str]) -> Understudy | None:
    """Write its configuration and its list of certificates."""
    every = tuple(haproxy_config.lines(configs))
    known = {one.where: one for one in every if one.words[0] == "bind"}
    binds = [known.get(site.where) for site in stage.sites]
    found = [one for one in binds if one is not None]
    if not found or len(found) < len(binds):
        return None
    name = f"{stage.directory}/haproxy.cfg"
    lines = [*_lines(stage, every, found)]
    return Understudy(
        replace(instance, config=name, arguments=("-f", name), master=None),
        (instance.binary, "-W", "-f", name),
        {
            "haproxy.cfg": "".join(f"{text}\n" for text, _ in lines),
            LIST_NAME: Path(stage.candidate, LIST_NAME).read_text().replace(stage.live, stage.candidate),
        },
        origins={f"{name}:{number}": where for number, (_, where) in enumerate(lines, 1) if where},
    )


def _lines(stage: Stage, every: Sequence[Line], binds: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """Yield each line, and where what it says really stands."""
    match stage.account:
        case Account.SERVER:
            kept = (*_GLOBAL, *_ACCOUNT)
        case Account.OURS:
            kept = _GLOBAL
    yield "global", ""
    yield "  log stdout format raw daemon", ""
    yield "  nbthread 1", ""
    yield "  maxconn 64", ""
    for one in every:
        if one.section == "global" and _is_kept(one.words[0], kept):
            yield f"  {_words(one.words)}", one.where
    yield "defaults", ""
    yield "  mode http", ""
    yield "  timeout connect 5s", ""
    yield "  timeout client 5s", ""
    yield "  timeout server 5s", ""
    title = ""
    for one in every:
        if one.section == "resolvers":
            if one.title != title:
                yield f"resolvers {one.title}", ""
                title = one.title
            yield f"  {_words(one.words)}", one.where
    for number, (bind, port) in enumerate(zip(binds, stage.ports, strict=True)):
        yield f"frontend understudy{number}", ""
        yield f"  bind 127.0.0.1:{port} {_words([*_options(bind, stage)])}", bind.where


def _is_kept(keyword: str, kept: Sequence[str]) -> bool:
    return any(keyword == one or (one[-1] in "-." and keyword.startswith(one)) for one in kept)


def _options(bind: Line, stage: Stage) -> Iterator[str]:
    """Keep what TLS is made of, and of the certificates ours alone, in the candidate's files."""
    words = iter(bind.words[2:])
    for word in words:
        if word in ("crt", "crt-list"):
            path = Path(next(words, ""))
            if path.name and realpath(path.parent.parent) == realpath(Path(stage.live).parent):
                where = stage.directory if word == "crt-list" else stage.candidate
                yield from (word, f"{where}/{path.name}")
        elif word in _WITH_VALUE:
            yield from (word, next(words, ""))
        elif word.startswith(_FLAGS):
            yield word


def _words(words: Sequence[str]) -> str:
    return " ".join(map(_word, words))


def _word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"' if escaped != text or not text or any(one in " \t#'" for one in text) else text
