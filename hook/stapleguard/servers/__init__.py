"""Web servers: how each is found, tested, reloaded, told what to serve, and understood.

A new server is one module with what `Server` asks for, and one line in `SERVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stapleguard.servers import apache, haproxy, lighttpd, nginx
from stapleguard.servers.commanded import Commanded
from stapleguard.servers.words import (
    Account,
    ConfigOutcome,
    ConfigTest,
    Include,
    Instance,
    Server,
    Site,
    Stage,
    Stapling,
    Understudy,
    Update,
)

__all__ = [
    "SERVERS",
    "Account",
    "Commanded",
    "ConfigOutcome",
    "ConfigTest",
    "Include",
    "Instance",
    "Server",
    "Site",
    "Stage",
    "Stapling",
    "Understudy",
    "Update",
]

_KINDS: Final[tuple[Server, ...]] = (nginx, apache, haproxy, lighttpd)

SERVERS: Final[Mapping[str, Server]] = MappingProxyType({one.KIND: one for one in _KINDS})
"""Every kind of server by its name."""
