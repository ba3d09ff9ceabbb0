"""What is in force for stapling in one server block of nginx and where it stands, and what nginx says."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from cryptography import x509

from stapleguard.diagnosis.facts import Block, Setting
from stapleguard.diagnosis.manner import Manner, Resolving
from stapleguard.finding import Finding
from stapleguard.model import Endpoint
from stapleguard.servers import heard as hearing
from stapleguard.servers import nginx, nginx_config
from stapleguard.servers.nginx_config import ServerBlock
from stapleguard.servers.words import Heard, Instance

MANNER: Final = Manner(
    resolving=Resolving.AT_LOAD,
    stapling="ssl_stapling",
    off="ssl_stapling off",
    file="ssl_stapling_file",
    responder="ssl_stapling_responder",
    anchors="ssl_trusted_certificate",
    verify="ssl_stapling_verify",
    block="server block",
    unit="nginx",
    again="`nginx -t && nginx -s reload`: without it nginx waits 300 seconds after a failure.",
    reloads="nginx -t && nginx -s reload",
    test="nginx -t -c {config}",
    turn_on="In the block at {block} add `ssl_stapling on;`.",
    turn_at="At {where} write `ssl_stapling on;`.",
    staple_file="remove the line `ssl_stapling_file {path};` at {where}, so that nginx asks the responder "
    "itself, or write a fresh answer (DER) there by rename.",
    resolver="At {where} write `resolver ADDRESS valid=300s;` with an address that does (`grep nameserver "
    "/etc/resolv.conf`) in the place of {bad}.",
)

_LINE: Final = re.compile(r"(?P<at>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[\w+\] (?P<pid>\d+)#")
_GROUP: Final = re.compile(r"\(\?<(?=[A-Za-z_])")
"""How PCRE opens a named group; Python wants a P in it."""
_BEFORE: Final = 5.0
_AFTER: Final = 2.0


def block_for(instance: Instance, endpoint: Endpoint, leaf: x509.Certificate | None) -> Block | None:
    """Find the block that answers a server name at an address, as nginx chooses it, and read it.

    An exact name, the longest wildcard in front, the longest behind, the first regular expression, then the
    default server of that address.
    """
    del leaf
    config = instance.config
    every = nginx_config.blocks(config)
    shown = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    # nginx takes the sockets of the address itself before those of every address.
    for host in (shown, "[::]" if ":" in shown else "*", "[::]"):
        here = [one for one in every if (host, endpoint.port) in one.listens]
        if here:
            break
    chosen = _chosen(here, endpoint.server_name)
    return _block(chosen, config) if chosen is not None else None


def resolvers(instance: Instance, block: Block) -> tuple[str, ...]:
    """Return the addresses of its resolver line without the parameters."""
    del instance
    return tuple(word for word in block.resolver.words if word != "off" and "=" not in word)


def files(instance: Instance) -> tuple[str, ...]:
    """Every file that the configuration is made of."""
    return nginx_config.files(instance.config)


def loaded_at(instance: Instance) -> float | None:
    """When its oldest worker was started."""
    return hearing.oldest(nginx.workers(instance))


def heard(instance: Instance, block: Block | None, leaf: x509.Certificate | None) -> Heard:
    """Read the lines of its workers, and of their load, in its log."""
    del leaf
    path = nginx.error_log(instance)
    if path is not None:
        text, unseen = hearing.from_file(path)
    elif nginx.logs_to(instance) == "stderr":
        text, unseen = hearing.from_output(nginx.KIND, instance.master)
    else:
        text, unseen = hearing.from_syslog(nginx.KIND, instance.master)
    lines = recent(text, nginx.workers(instance), loaded_at(instance) or 0.0)
    return Heard(_about(nginx.log_findings("\n".join(lines)), block), unseen)


def recent(text: str, workers: Sequence[int], begun: float) -> list[str]:
    """Keep the lines that count since the last load: those of the workers, and those of the load itself."""
    kept = []
    for line in text.splitlines():
        parts = _LINE.search(line)
        if parts is None:
            continue
        if int(parts["pid"]) in workers:
            kept.append(line)
            continue
        at = datetime.strptime(parts["at"], "%Y/%m/%d %H:%M:%S").astimezone().timestamp()
        if begun - _BEFORE <= at <= begun + _AFTER:
            kept.append(line)
    return kept


def _about(log: Sequence[Finding], found: Block | None) -> tuple[Finding, ...]:
    """Leave out what is said of other certificates."""
    mine = {os.path.realpath(path) for path in found.certificate.words} if found else set()
    return tuple(
        one
        for one in log
        if not mine or not one.subject.startswith("/") or os.path.realpath(one.subject) in mine
    )


def _chosen(here: Sequence[ServerBlock], name: str) -> ServerBlock | None:
    wanted = name.lower().rstrip(".")
    fits = (_exact, _longest_suffix, _longest_prefix, _expression) if wanted else ()
    for fit in fits:
        if (found := fit(here, wanted)) is not None:
            return found
    return next((one for one in here if one.default), here[0] if here else None)


def _exact(here: Sequence[ServerBlock], wanted: str) -> ServerBlock | None:
    return next((one for one in here if wanted in one.names or f".{wanted}" in one.names), None)


def _longest_suffix(here: Sequence[ServerBlock], wanted: str) -> ServerBlock | None:
    ends = [
        (len(suffix), one)
        for one in here
        for pattern in one.names
        if pattern.startswith(("*.", ".")) and wanted.endswith(suffix := pattern.removeprefix("*"))
    ]
    return max(ends, key=lambda end: end[0])[1] if ends else None


def _longest_prefix(here: Sequence[ServerBlock], wanted: str) -> ServerBlock | None:
    starts = [
        (len(pattern), one)
        for one in here
        for pattern in one.names
        if pattern.endswith(".*") and wanted.startswith(pattern.removesuffix("*"))
    ]
    return max(starts, key=lambda start: start[0])[1] if starts else None


def _expression(here: Sequence[ServerBlock], wanted: str) -> ServerBlock | None:
    """The first one that matches, in the order of the files; one that Python cannot read matches nothing."""
    for one in here:
        for pattern in one.names:
            if not pattern.startswith("~"):
                continue
            flags = re.IGNORECASE if pattern != pattern.lower() else 0
            with suppress(re.error):
                if re.search(_GROUP.sub("(?P<", pattern[1:]), wanted, flags):
                    return one
    return None


def _block(server: ServerBlock, config: str) -> Block:
    def setting(name: str, default: str = "") -> Setting:
        given = server.value(name)
        if given is None:
            return Setting((default,) if default else ())
        return Setting(given.arguments, given.where)

    def path(name: str) -> Setting:
        given = setting(name)
        if not given.value or "$" in given.value or given.value.startswith("data:"):
            return given
        return Setting((nginx_config.absolute(given.value, config),), given.where)

    every = server.values("ssl_certificate")
    variable = [
        one
        for one in every
        if one.arguments and ("$" in one.arguments[0] or one.arguments[0].startswith("data:"))
    ]
    fixed = [one for one in every if one.arguments and one not in variable]
    certificates = tuple(nginx_config.absolute(one.arguments[0], config) for one in fixed)
    file = path("ssl_stapling_file")
    resolver = setting("resolver")
    trusted = "ssl_trusted_certificate"
    if not setting(trusted).value and setting("ssl_verify_client", "off").value != "off":
        trusted = "ssl_client_certificate"  # read only where clients are verified
    families = tuple(one for one in (4, 6) if f"ipv{one}=off" not in resolver.words)
    return Block(
        server.where,
        setting("ssl_stapling", "off"),
        setting("ssl_stapling_verify", "off"),
        file,
        setting("ssl_stapling_responder"),
        resolver,
        path(trusted),
        Setting(certificates, fixed[0].where) if fixed else path("ssl_certificate"),
        Setting(variable[0].arguments, variable[0].where) if variable else None,
        len(every),
        fetches=not file.value,
        families=families,
    )
