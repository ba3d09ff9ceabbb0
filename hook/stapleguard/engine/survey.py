"""Which server on this host serves a lineage, on which addresses and names, and how far we may guard it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from stapleguard import config
from stapleguard.engine.world import World
from stapleguard.model import Endpoint
from stapleguard.servers import SERVERS, Commanded, Instance, Server, Site
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
class Use:
    """One server of this host that uses a lineage, and where."""

    server: Server
    instance: Instance
    mode: Mode
    sites: tuple[Site, ...]

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.instance.master is not None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other server of this host."""
        return self.instance.kind, self.instance.config

    def listens(self, endpoint: Endpoint) -> bool:
        """Whether its configuration has the endpoint's address and port."""
        return (endpoint.address, endpoint.port) in {place for site in self.sites for place in site.listens}

    def workers(self) -> tuple[int, ...]:
        """List its processes that accept connections now."""
        return self.server.workers(self.instance)


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found of one lineage: who uses it, and who of them does not run although others do."""

    uses: tuple[Use, ...]
    endpoints: tuple[Endpoint, ...]
    stopped: tuple[Instance, ...] = ()

    @property
    def mode(self) -> Mode:
        """The most that is done for it."""
        modes = {use.mode for use in self.uses}
        return next((mode for mode in (Mode.GUARD, Mode.WATCH) if mode in modes), Mode.CHECK)

    @property
    def retractable(self) -> bool:
        """Whether putting the previous generation back changes what every one of the servers serves."""
        return bool(self.uses) and all(use.mode is Mode.GUARD for use in self.uses)

    @property
    def instance(self) -> Instance | None:
        """The first server that uses it."""
        return self.uses[0].instance if self.uses else None

    @property
    def sites(self) -> tuple[Site, ...]:
        """The server blocks that use it, of every server."""
        return tuple(site for use in self.uses for site in use.sites)

    @property
    def running(self) -> bool:
        """Whether a server that uses it runs."""
        return any(use.running for use in self.uses)

    @property
    def kinds(self) -> str:
        """The kinds of its servers in one phrase, for people."""
        return " and ".join(dict.fromkeys(use.instance.kind for use in self.uses)) or "no server"

    def workers(self, endpoint: Endpoint) -> tuple[int, ...]:
        """List who accepts connections at an endpoint."""
        there = [use for use in self.uses if use.listens(endpoint)]
        if not there and len(self.uses) == 1:
            there = [*self.uses]  # an address that its configuration does not name: a forwarder's, perhaps
        return tuple(pid for use in there for pid in use.workers())


def survey(world: World, name: str, sources: Sequence[str], names: Sequence[str]) -> Survey:
    """Find the servers that use a lineage; its certificate's `names` stand in where a block has none."""
    found = [use for use in _uses(world, name, sources, names) if use.mode is not Mode.CHECK]
    running = [use for use in found if use.running]
    uses = tuple(sorted(running or found, key=lambda use: use.mode is not Mode.GUARD))
    stopped = tuple(use.instance for use in found if not use.running) if running else ()
    listening = [one for use in uses for one in _listening(use.sites, names)]
    endpoints = [*_configured(world, name, names), *listening]
    return Survey(uses, world.narrowed.apply(endpoints), stopped)


def _uses(world: World, name: str, sources: Sequence[str], names: Sequence[str]) -> Iterator[Use]:
    for server in SERVERS.values():
        program = world.config.program(server.KIND)
        for instance in server.instances(program.binary or None, program.config or None):
            sites = server.sites(instance, str(world.state.root))
            guarded = tuple(site for site in sites if _guards(world, site, name))
            watched = tuple(site for site in sites if _watches(site, sources, names))
            mode = Mode.GUARD if guarded else Mode.WATCH if watched else Mode.CHECK
            yield Use(server, instance, mode, guarded or watched)
    for commanded in world.config.servers.values():
        if name in commanded.lineages:
            server = Commanded(commanded)
            yield Use(server, server.instance, Mode.GUARD, ())


def _guards(world: World, site: Site, name: str) -> bool:
    ours = f"{world.state.root}/generations/{name}/"
    return name in site.guards or any(path.startswith(ours) for path in site.certificates)


def _watches(site: Site, sources: Sequence[str], names: Sequence[str]) -> bool:
    if site.variable and not site.certificates:
        # Whichever file it will choose, it is for these names; that it never staples is told.
        return bool(sources) and not {*site.names}.isdisjoint(names)
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
