"""Web servers: how each is found, tested, reloaded, told what to serve, and understood.

A new server is one module with what `Server` asks for, and one line in `SERVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stapleguard.servers import (
    apache,
    apache_edit,
    haproxy,
    haproxy_edit,
    lighttpd,
    lighttpd_edit,
    nginx,
    nginx_edit,
)
from stapleguard.servers.commanded import Commanded
from stapleguard.servers.edit import Editor
from stapleguard.servers.words import (
    ConfigOutcome,
    ConfigTest,
    Include,
    Instance,
    Server,
    Site,
    Stapling,
    Update,
)

__all__ = [
    "EDITORS",
    "SERVERS",
    "Commanded",
    "ConfigOutcome",
    "ConfigTest",
    "Editor",
    "Include",
    "Instance",
    "Server",
    "Site",
    "Stapling",
    "Update",
]

_KINDS: Final[tuple[Server, ...]] = (nginx, apache, haproxy, lighttpd)

SERVERS: Final[Mapping[str, Server]] = MappingProxyType({one.KIND: one for one in _KINDS})
"""Every kind of server by its name."""

EDITORS: Final[Mapping[str, Editor]] = MappingProxyType(
    {
        nginx.KIND: nginx_edit,
        apache.KIND: apache_edit,
        haproxy.KIND: haproxy_edit,
        lighttpd.KIND: lighttpd_edit,
    }
)
"""The kinds whose configuration `setup` changes."""
