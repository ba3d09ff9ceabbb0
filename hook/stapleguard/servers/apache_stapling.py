"""What is in force for stapling in one virtual host of Apache and where it stands, and what Apache says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from cryptography import x509

from stapleguard.diagnosis.facts import Block, Setting, Unseen
from stapleguard.diagnosis.manner import Manner
from stapleguard.model import Endpoint
from stapleguard.servers import apache, apache_config
from stapleguard.servers import heard as hearing
from stapleguard.servers.words import Heard, Instance

MANNER: Final = Manner(
    method="POST",
    stapling="SSLUseStapling",
    off="SSLUseStapling off",
    file="",
    responder="SSLStaplingForceURL",
    block="virtual host",
    unit="apache2",
    again="`apachectl configtest && apachectl graceful`: Apache may keep a failure for up to an hour "
    "(SSLStaplingErrorCacheTimeout, and 3600 seconds for a try-later of its own).",
    reloads="apachectl configtest && apachectl graceful",
    test="apache2 -t -f {config}",
    turn_on="In the virtual host at {block} add `SSLUseStapling on`.",
    turn_at="At {where} write `SSLUseStapling on`.",
    beside="Outside of every virtual host, in {config} for instance: `SSLStaplingCache "
    "shmcb:${{APACHE_RUN_DIR}}/ssl_stapling(128000)` (and `a2enmod socache_shmcb` on Debian).",
    keeps_back="In the virtual host at {block}: `SSLStaplingReturnResponderErrors off` and "
    "`SSLStaplingFakeTryLater off`, so that Apache keeps back errors, stale answers and a try-later of its "
    "own.",
    passes_on="What is revoked, unknown or badly signed Apache staples whatever is set: until the answer is "
    "right, only `SSLUseStapling off` ({where}) spares the clients.",
    proxy="At {where} mend `SSLOCSPProxyURL`, or remove the line where the responder is reached without.",
)

_LOADED: Final = re.compile(r"AH00489|AH00163")  # "configured -- resuming normal operations"
_ENDED: Final = re.compile(r"AH00493|AH00494|AH00169|AH00171|AH00172|AH00491")
_AT: Final = re.compile(r"^\[(?P<at>\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d)\.\d+ (?P<year>\d{4})\]")
_SERIAL: Final = re.compile(r"serial: ([0-9A-Fa-f]+)")


def block_for(instance: Instance, endpoint: Endpoint, leaf: x509.Certificate | None) -> Block | None:
    """Find the virtual host that answers a server name at an address, and read it."""
    del leaf
    config = apache.load(instance)
    scope = apache_config.host_for(config, endpoint.address, endpoint.port, endpoint.server_name)
    return _block(instance, config, scope) if scope is not None else None


def resolvers(instance: Instance, block: Block) -> tuple[str, ...]:
    """None: it asks as every program of the host does, whenever it needs an address."""
    del instance, block
    return ()


def files(instance: Instance) -> tuple[str, ...]:
    """Every file that the configuration is made of."""
    return apache.load(instance).files


def loaded_at(instance: Instance) -> float | None:
    """When its oldest process was started: a graceful restart replaces them all."""
    return hearing.oldest(apache.workers(instance))


def heard(instance: Instance, block: Block | None, leaf: x509.Certificate | None) -> Heard:
    """Read its main log and that of the virtual host, from the last load on."""
    config = apache.load(instance)
    main = apache.log_path(instance, config, config.main.first("errorlog"))
    if main is not None:
        text, unseen = hearing.from_file(main)
    else:
        text, unseen = hearing.from_syslog(apache.KIND, instance.master)
    lines, since = recent(text)
    more: list[Unseen] = [*unseen]
    for path in dict.fromkeys(_own_logs(instance, config, block)):
        if path != main:
            text, unseen = hearing.from_file(path)
            lines += [line for line in text.splitlines() if since is None or (_time(line) or since) >= since]
            more += unseen
    serial = leaf.serial_number if leaf is not None else None
    mine = [line for line in lines if _about(line, serial)]
    return Heard(apache.log_findings("\n".join(mine)), tuple(more))


def recent(text: str) -> tuple[list[str], datetime | None]:
    """Keep the lines from the last load on: it begins where the one before has ended.

    Returns the time of the first of them, too. Without any load in sight everything is kept.
    """
    lines = text.splitlines()
    loads = [number for number, line in enumerate(lines) if _LOADED.search(line)]
    if not loads:
        return lines, None
    before = [
        number
        for number, line in enumerate(lines[: loads[-1]])
        if _ENDED.search(line) or _LOADED.search(line)
    ]
    kept = lines[before[-1] + 1 :] if before else lines
    return kept, next((at for line in kept if (at := _time(line)) is not None), None)


def _time(line: str) -> datetime | None:
    parts = _AT.match(line)
    if parts is None:
        return None
    return datetime.strptime(f"{parts['at']} {parts['year']}", "%a %b %d %H:%M:%S %Y").astimezone()


def _about(line: str, serial: int | None) -> bool:
    """Leave out what is said of another certificate."""
    named = _SERIAL.search(line)
    return named is None or serial is None or int(named[1], 16) == serial


def _own_logs(instance: Instance, config: apache_config.Config, block: Block | None) -> Iterator[str]:
    for scope in config.hosts:
        given = scope.first("errorlog")
        path = apache.log_path(instance, config, given) if block and scope.where == block.where else None
        if path is not None:
            yield path


def _block(instance: Instance, config: apache_config.Config, scope: apache_config.Scope) -> Block:
    def setting(name: str, default: str = "") -> Setting:
        value = config.value(scope, name)
        return Setting((value,), config.place(scope, name)) if value else Setting((default,))

    def switch(name: str, default: str) -> Setting:
        given = setting(name, default)
        return Setting((given.value.lower(),), given.where)

    def path(name: str) -> Setting:
        given = setting(name)
        return (
            Setting((apache.absolute(instance, config, given.value),), given.where) if given.value else given
        )

    managed = config.managed(scope)
    errors = Setting(("off",)) if managed else switch("sslstaplingreturnrespondererrors", "on")
    return Block(
        scope.where or instance.config,
        switch("mdstapling", "off") if managed else switch("sslusestapling", "off"),
        responder=setting("sslstaplingforceurl"),
        trusted=path("sslcacertificatefile"),
        certificate=path("sslcertificatefile"),
        certificates=len(scope.all("sslcertificatefile")),
        chain=path("sslcertificatechainfile"),
        cache=None if managed else setting("sslstaplingcache"),
        errors=errors,
        made_up=errors if errors.value == "off" else switch("sslstaplingfaketrylater", "on"),
        proxy=setting("sslocspproxyurl"),
        in_handshake=not managed,
        key=path("sslcertificatekeyfile"),
    )
