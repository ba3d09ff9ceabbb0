"""What is in force for stapling in one block of lighttpd, where each of it stands, and what lighttpd says."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from cryptography import x509

from stapleguard.diagnosis.facts import Block, Setting
from stapleguard.diagnosis.manner import Manner
from stapleguard.model import Endpoint
from stapleguard.servers import heard as hearing
from stapleguard.servers import lighttpd, lighttpd_config
from stapleguard.servers.words import Heard, Instance

_FILE: Final = "ssl.stapling-file"
_PEM: Final = "ssl.pemfile"
_ABOVE: Final = "ssl.ca-file"

MANNER: Final = Manner(
    stapling=_FILE,
    off=f"no {_FILE}",
    file=_FILE,
    block="socket",
    unit="lighttpd",
    again="`kill -USR1` to lighttpd where it may read its key again, else `systemctl restart lighttpd`.",
    reloads="lighttpd -tt -f CONFIG, then SIGUSR1 or a restart",
    test="lighttpd -tt -f {config}",
    turn_on="lighttpd fetches nothing itself. Beside `ssl.pemfile` ({block}) add "
    '`ssl.stapling-file = "FILE.der"` '
    "with an answer (DER) that something renews: stapleguard does, where lighttpd includes its lines "
    "(docs/how-to/lighttpd.md).",
    turn_at='At {where} name a file: `ssl.stapling-file = "FILE.der"`.',
    staple_file="write a fresh answer (DER) to {path} ({where}) by a rename, readable by lighttpd's user; "
    "without one remove that line.",
    read="lighttpd reads the file when it loads, and again shortly before the answer in it ends, as the user "
    "that it has become.",
)

_STARTED: Final = re.compile(r"server started \(")
_AT: Final = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d): ")


def block_for(instance: Instance, endpoint: Endpoint, leaf: x509.Certificate | None) -> Block | None:
    """Find the block that answers a server name at an address, and read it."""
    del leaf
    found = lighttpd_config.presented(
        instance.config, endpoint.address, endpoint.port, endpoint.server_name, (_PEM, _FILE, _ABOVE)
    )
    if found is None:
        return None
    settings = {
        name: Setting((value,), where) if value else Setting()
        for name, (value, where) in found.directives.items()
    }
    return Block(
        found.directives[_PEM][1] or found.where,
        Setting(("on",), settings[_FILE].where) if settings[_FILE].value else Setting(("off",)),
        file=settings[_FILE],
        certificate=settings[_PEM],
        chain=settings[_ABOVE],
        fetches=False,
    )


def resolvers(instance: Instance, block: Block) -> tuple[str, ...]:
    """None: it asks nobody."""
    del instance, block
    return ()


def files(instance: Instance) -> tuple[str, ...]:
    """Every file that the configuration is made of."""
    return lighttpd_config.files(instance.config)


def loaded_at(instance: Instance) -> float | None:
    """When it last said that it has started: a graceful restart goes on in the same process."""
    if instance.master is None:
        return None
    lines = _log(instance)[0].splitlines()
    said = [at[1] for line in lines if _STARTED.search(line) and (at := _AT.match(line))]
    if said:
        return datetime.strptime(said[-1], "%Y-%m-%d %H:%M:%S").astimezone().timestamp()
    return hearing.oldest([instance.master])


def heard(instance: Instance, block: Block | None, leaf: x509.Certificate | None) -> Heard:
    """Read its log from its last start on; of a bad file it says next to nothing."""
    del block, leaf
    text, unseen = _log(instance)
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if _STARTED.search(line)]
    kept = lines[starts[-1] :] if starts else lines
    return Heard(lighttpd.log_findings("\n".join(kept)), unseen)


def _log(instance: Instance) -> hearing.Text:
    path = lighttpd.error_log(instance)
    if path is not None:
        return hearing.from_file(path)
    return hearing.from_output(lighttpd.KIND, instance.master)
