"""Which server on this host serves a lineage, on which addresses and names, and how far we may guard it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from stapleguard import config
from stapleguard.engine.world import World
from stapleguard.model import Endpoint
from stapleguard.servers import Instance, Site, nginx
from stapleguard.wire.line import addresses_of
from stapleguard.wire.tls import is_address


class Mode(Enum):
    """How a lineage is looked after (design: three ways to be used)."""

    GUARD = "guard"
    """A server includes our generation."""
    WATCH = "watch"
    """A server points at the ACME client's own directory: reload, prove, alert."""
    CHECK = "check"
    """No server of this host is known to use it; what is configured is only looked at."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found of one lineage."""

    mode: Mode
    instance: Instance | None
    sites: tuple[Site, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def running(self) -> bool:
        """Whether the server that uses the lineage runs."""
        return self.instance is not None and self.instance.master is not None


def survey(world: World, name: str, sources: Sequence[str], names: Sequence[str]) -> Survey:
    """Find the server blocks that use a lineage; its certificate's `names` stand in where one has none."""
    found = nginx.instances(world.config.nginx_binary or None, world.config.nginx_config or None)
    best: tuple[Mode, Instance | None, tuple[Site, ...]] = (Mode.CHECK, None, ())
    for instance in sorted(found, key=lambda one: one.master is None):
        sites = nginx.sites(instance, str(world.state.root))
        guarded = tuple(site for site in sites if _guards(world, site, name))
        watched = tuple(site for site in sites if _watches(site, sources))
        if guarded:
            best = (Mode.GUARD, instance, guarded)
            break
        if watched and best[0] is Mode.CHECK:
            best = (Mode.WATCH, instance, watched)
    mode, server, used = best
    endpoints = [*_configured(world, name, names), *_listening(used, names)]
    return Survey(mode, server, used, world.narrowed.apply(endpoints))


def _guards(world: World, site: Site, name: str) -> bool:
    ours = f"{world.state.root}/generations/{name}/"
    return name in site.guards or any(path.startswith(ours) for path in site.certificates)


def _watches(site: Site, sources: Sequence[str]) -> bool:
    real = {
        os.path.realpath(Path(source) / file) for source in sources for file in ("fullchain.pem", "cert.pem")
    }
    return any(os.path.realpath(path) in real for path in site.certificates)


def _listening(sites: Sequence[Site], names: Sequence[str]) -> list[Endpoint]:
    endpoints = []
    for site in sites:
        concrete = [name for name in site.names if name and not name.startswith(("~", "*", ".", "_"))]
        known = [name for name in names if not name.startswith("*")]
        server_name = next(iter([*concrete, *known]), "")
        endpoints += [
            Endpoint(server_name or address, port, server_name, address) for address, port in site.listens
        ]
    return endpoints


def _configured(world: World, name: str, names: Sequence[str]) -> list[Endpoint]:
    """Return what the configuration names: endpoints under their own names, nodes under the public one."""
    public = next((one for one in names if not one.startswith("*")), "")
    lineage = world.config.lineage(name)
    places = [(*config.endpoint(text), "") for text in lineage.endpoints]
    places += [(*config.endpoint(text), public) for text in lineage.nodes]
    found = addresses_of([host for host, _, _ in places], world.config.handshake_timeout)
    return [
        Endpoint(host, port, asked or (public if public and is_address(host) else host), address)
        for host, port, asked in places
        for address in found[host]
    ]
