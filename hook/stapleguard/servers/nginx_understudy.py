"""A private nginx for one generation: the TLS, resolver and stapling lines in force, with other files.

Everything else of the configuration is left away: no locations, no logs, no modules, no shared memory. One
worker, since every worker does the same; what it writes lies in a directory of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from stapleguard.servers import nginx_config
from stapleguard.servers.lines import is_published
from stapleguard.servers.nginx_config import INCLUDE_NAME, Directive, ServerBlock
from stapleguard.servers.words import Account, Instance, Site, Stage, Understudy

_MAIN: Final = frozenset({"user", "ssl_engine"})
_FILES: Final = frozenset(
    {
        "ssl_certificate", "ssl_certificate_key", "ssl_client_certificate", "ssl_crl", "ssl_dhparam",
        "ssl_password_file", "ssl_stapling_file", "ssl_trusted_certificate",
    }
)  # fmt: skip
"""Whose argument is a path: relative ones start where the real configuration is."""
_INHERITED: Final = _FILES - {"ssl_certificate", "ssl_certificate_key"} | {
    "resolver", "resolver_timeout", "ssl_buffer_size", "ssl_ciphers", "ssl_conf_command", "ssl_early_data",
    "ssl_ecdh_curve", "ssl_prefer_server_ciphers", "ssl_protocols", "ssl_stapling", "ssl_stapling_responder",
    "ssl_stapling_verify", "ssl_verify_client", "ssl_verify_depth",
}  # fmt: skip
_OWN: Final = _INHERITED | {"ssl_certificate", "ssl_certificate_key"}
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_PLAIN: Final = re.compile(r"[\w./@%+=:,~!|*?&^$<>()\[\]-]+")
_FIRST_WITH_LOG_OPTION: Final = (1, 19, 5)


def compose(instance: Instance, stage: Stage, without: frozenset[str]) -> Understudy | None:
    """Write its configuration; `without` are the modules that the program was built without."""
    known = {one.where: one for one in nginx_config.blocks(instance.config)}
    blocks = [known.get(site.where) for site in stage.sites]
    found = [one for one in blocks if one is not None and one.context == "http"]
    if not found or len(found) < len(blocks):
        return None
    name, log = f"{stage.directory}/nginx.conf", f"{stage.directory}/error.log"
    lines = [*_lines(instance, stage, without, log, found)]
    options = ["-p", f"{stage.directory}/", "-c", name]
    if _numbers(instance.version) >= _FIRST_WITH_LOG_OPTION:
        options += ["-e", log]
    return Understudy(
        replace(instance, config=name, arguments=tuple(options), master=None),
        (instance.binary, *options),
        {"nginx.conf": "".join(f"{text}\n" for text, _ in lines)},
        (log,),
        origins={f"{name}:{number}": where for number, (_, where) in enumerate(lines, 1) if where},
    )


def _lines(
    instance: Instance, stage: Stage, without: frozenset[str], log: str, blocks: Sequence[ServerBlock]
) -> Iterator[tuple[str, str]]:
    """Yield each line, and where what it says really stands."""
    yield "daemon off;", ""
    yield "worker_processes 1;", ""
    yield f"pid {_word(f'{stage.directory}/pid')};", ""
    yield f"error_log {_word(log)} info;", ""
    match stage.account:
        case Account.SERVER:
            kept = _MAIN
        case Account.OURS:
            kept = _MAIN - {"user"}
            yield "master_process off;", ""  # no worker, which would have to become another user
            yield "user root;", ""  # or its directories would have to be given away
    yield from _written(nginx_config.main_level(instance.config), kept, instance.config)
    yield "events { worker_connections 64; accept_mutex off; }", ""
    yield "http {", ""
    yield "access_log off;", ""
    for kind in _TEMPORARY:
        if kind not in without:
            yield f"{kind}_temp_path {_word(f'{stage.directory}/{kind}')};", ""
    yield from _written(blocks[0].around, _INHERITED, instance.config)
    for block, site, port in zip(blocks, stage.sites, stage.ports, strict=True):
        yield from _server(block, site, port, stage, instance.config)
    yield "}", ""


def _server(
    block: ServerBlock, site: Site, port: int, stage: Stage, config: str
) -> Iterator[tuple[str, str]]:
    yield "server {", site.where
    yield f"listen 127.0.0.1:{port} ssl;", ""
    yield f"include {_word(f'{stage.candidate}/{INCLUDE_NAME}')};", ""
    own = [one for one in block.own if not is_published(one.where, INCLUDE_NAME, stage.live)]
    yield from _written(own, _OWN, config)
    yield "}", ""


def _written(
    directives: Sequence[Directive], names: frozenset[str], config: str
) -> Iterator[tuple[str, str]]:
    for one in directives:
        if one.name not in names or one.block:
            continue
        words = [
            nginx_config.absolute(word, config) if _relative(one, word) else word for word in one.arguments
        ]
        yield f"{one.name} {' '.join(map(_word, words))};", one.where


def _relative(directive: Directive, word: str) -> bool:
    return directive.name in _FILES and not word.startswith(("data:", "engine:", "store:"))


def _word(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
