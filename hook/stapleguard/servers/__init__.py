"""Web servers: how each is found, tested, reloaded, told what to serve, and understood.

A new server is one module with what `Server` asks for, and one line in `SERVERS`; one that the doctor can
read has another with what `Stapler` asks for, and one line in `STAPLERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stapleguard.servers import (
    apache,
    apache_edit,
    apache_stapling,
    haproxy,
    haproxy_edit,
    haproxy_stapling,
    lighttpd,
    lighttpd_edit,
    lighttpd_stapling,
    nginx,
    nginx_edit,
    nginx_stapling,
)
from stapleguard.servers.commanded import Commanded
from stapleguard.servers.edit import Editor
from stapleguard.servers.words import (
    Account,
    ConfigOutcome,
    ConfigTest,
    Include,
    Instance,
    Server,
    Site,
    Stage,
    Stapler,
    Stapling,
    Understudy,
    Update,
)

__all__ = [
    "EDITORS",
    "SERVERS",
    "STAPLERS",
    "Account",
    "Commanded",
    "ConfigOutcome",
    "ConfigTest",
    "Editor",
    "Include",
    "Instance",
    "Server",
    "Site",
    "Stage",
    "Stapler",
    "Stapling",
    "Understudy",
    "Update",
]

_KINDS: Final[tuple[Server, ...]] = (nginx, apache, haproxy, lighttpd)

SERVERS: Final[Mapping[str, Server]] = MappingProxyType({one.KIND: one for one in _KINDS})
"""Every kind of server by its name."""

STAPLERS: Final[Mapping[str, Stapler]] = MappingProxyType(
    {
        apache.KIND: apache_stapling,
        haproxy.KIND: haproxy_stapling,
        lighttpd.KIND: lighttpd_stapling,
        nginx.KIND: nginx_stapling,
    }
)
"""What the doctor reads of each, by the same name."""

EDITORS: Final[Mapping[str, Editor]] = MappingProxyType(
    {
        nginx.KIND: nginx_edit,
        apache.KIND: apache_edit,
        haproxy.KIND: haproxy_edit,
        lighttpd.KIND: lighttpd_edit,
    }
)
"""The kinds whose configuration `setup` changes."""
