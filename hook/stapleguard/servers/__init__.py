"""Web servers: how each is found, tested, reloaded, told what to serve, and understood.

A new server is one module with what `Server` asks for, and one line in `SERVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stapleguard.servers import nginx
from stapleguard.servers.words import (
    ConfigOutcome,
    ConfigTest,
    Include,
    Instance,
    Server,
    Site,
    Stapling,
)

__all__ = [
    "SERVERS",
    "ConfigOutcome",
    "ConfigTest",
    "Include",
    "Instance",
    "Server",
    "Site",
    "Stapling",
]

SERVERS: Final[Mapping[str, Server]] = MappingProxyType({nginx.KIND: nginx})
"""Every kind of server by its name."""
