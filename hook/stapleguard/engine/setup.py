"""What is on this host, how far each lineage is looked after, and the exact change for a step up."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from stapleguard import host, material
from stapleguard.clients import stores
from stapleguard.clients.stores import Store
from stapleguard.disk import read_bounded
from stapleguard.engine.survey import Mode
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import Renewal
from stapleguard.servers import EDITORS, SERVERS, Instance, Site, nginx
from stapleguard.servers.edit import Edit, Left, Link, Plan, Refusal, Wanted
from stapleguard.units import RETRY_TIMER
from stapleguard.wire.tls import is_address

_UNITS: Final = (RETRY_TIMER, "stapleguard-recover.service")
_SECONDS: Final = 10.0
_OTHERS: Final = ("caddy", "hitch", "h2o", "traefik", "envoy")


@dataclass(frozen=True, slots=True)
class Lineage:
    """One lineage of an ACME client; `served` names the server blocks that use it."""

    source: Renewal
    names: tuple[str, ...]
    not_after: datetime
    leaf: str
    responders: tuple[str, ...]
    mode: Mode = Mode.CHECK
    served: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.source.name

    @property
    def directory(self) -> str:
        """Where its files are."""
        return self.source.directory or os.path.dirname(self.source.files["privkey"])  # noqa: PTH120 - text


@dataclass(frozen=True, slots=True)
class Change:
    """One file before and after; `before` is None where there is none yet."""

    path: str
    why: str
    before: bytes | None
    after: bytes | Link
    lineages: tuple[str, ...] = ()
    mode: int = 0o644
    instance: Instance | None = None
    """The server whose configuration it is, and that tests it."""

    @property
    def diff(self) -> str:
        """The change as a unified diff."""
        if isinstance(self.after, Link):
            return f"+++ {self.path}\n@@ a link @@\n+{self.after.target}\n"
        old = (self.before or b"").decode("utf-8", "replace").splitlines(keepends=True)
        new = self.after.decode("utf-8", "replace").splitlines(keepends=True)
        source = self.path if self.before is not None else "/dev/null"
        lines = (
            one if one.endswith("\n") else f"{one}\n"
            for one in difflib.unified_diff(old, new, source, self.path)
        )
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Place:
    """One installation and what it serves; `lacks_resolver` where an include would need one."""

    instance: Instance
    sites: tuple[Site, ...]
    lacks_resolver: bool = False

    @property
    def resolvers(self) -> tuple[str, ...]:
        """The resolvers that its configuration names."""
        return tuple(dict.fromkeys(one for site in self.sites for one in site.resolvers))


@dataclass(frozen=True, slots=True)
class Found:
    """What the host has; `by_hand` is what a person must do where nothing is changed, and why."""

    places: tuple[Place, ...]
    others: tuple[str, ...]
    stores: tuple[Store, ...]
    lineages: tuple[Lineage, ...]
    changes: tuple[Change, ...]
    by_hand: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)


def look(world: World) -> Found:
    """Look at servers, lineages and which server block uses which; plan the step from watch to guard."""
    places = tuple(_places(world))
    kept = stores.look()
    lineages, by_hand = _lineages(kept)
    changes: dict[str, Change] = {}
    modes: dict[str, list[tuple[Mode, str]]] = {}
    for place in places:
        wanted = []
        for site in place.sites:
            by_hand += _older(site, lineages)
            for name in site.guards:
                modes.setdefault(name, []).append((Mode.GUARD, site.where))
            for lineage, paths, mode in _uses(site, lineages):
                modes.setdefault(lineage.name, []).append((mode, site.where))
                live = str(world.state.live_path(lineage.name))
                wanted.append(Wanted(site, paths, lineage.name, live))
        plan = _plan(place.instance, wanted)
        for edit in plan.edits:
            # Two servers may read one file: it is changed once, and tested by the first of them.
            changes.setdefault(edit.path, _change(edit, place.instance))
        by_hand += [_by_hand(one, place.instance) for one in plan.left]
    others = tuple(one for one in _OTHERS if host.named(frozenset({one})))
    by_hand += [f"{one} runs here; setup does not change its configuration" for one in others]
    placed = tuple(_placed(one, modes.get(one.name, [])) for one in lineages)
    shown = tuple(replace(one, lacks_resolver=_lacks_resolver(world, one, placed)) for one in places)
    text = tuple(dict.fromkeys(by_hand))
    return Found(shown, others, kept, placed, tuple(changes.values()), text, _resolvers(), _units())


def _lacks_resolver(world: World, place: Place, lineages: Sequence[Lineage]) -> bool:
    """Whether nginx would ask for a responder by name, and has nobody to ask but once at its reload."""
    if place.instance.kind != nginx.KIND or world.config.nginx_resolver:
        return False
    bare = {site.where for site in place.sites if not site.resolvers}
    named = (
        urlsplit(url).hostname or "" for one in lineages if bare & {*one.served} for url in one.responders
    )
    return any(not is_address(host) for host in named)


def _resolvers() -> tuple[str, ...]:
    text = read_bounded(Path("/etc/resolv.conf"))
    lines = [] if isinstance(text, Finding) else text.decode("utf-8", "replace").splitlines()
    words = (line.split() for line in lines)
    return tuple(word[1] for word in words if word[:1] == ["nameserver"] and len(word) > 1)


def _units() -> Mapping[str, str]:
    """Say of each of our units that runs by itself what systemd knows of it; nothing without systemd."""
    if not host.booted():
        return {}
    asked = {unit: host.systemctl("is-enabled", unit, timeout=_SECONDS) for unit in _UNITS}
    return {unit: done.stdout.strip() or "not installed" for unit, done in asked.items()}


def _plan(instance: Instance, wanted: Sequence[Wanted]) -> Plan:
    editor = EDITORS.get(instance.kind)
    if editor is not None:
        return editor.plan(instance, wanted)
    refusal = Refusal(f"setup does not change the configuration of {instance.kind}")
    return Plan((), tuple(Left(one.site.where, refusal, (one,)) for one in wanted))


def instances(world: World) -> tuple[Instance, ...]:
    """Find every server of this host."""
    return tuple(place.instance for place in _places(world))


def _places(world: World) -> Iterator[Place]:
    for kind, server in SERVERS.items():
        program = world.config.program(kind)
        for instance in server.instances(program.binary or None, program.config or None):
            yield Place(instance, server.sites(instance, str(world.state.root)))


def _lineages(kept: Sequence[Store]) -> tuple[list[Lineage], list[str]]:
    found: dict[str, Lineage] = {}
    by_hand: list[str] = []
    for source in (one for store in kept for one in store.lineages):
        file = source.files.get("cert") or source.files.get("fullchain") or f"{source.directory}/cert.pem"
        leaf = _leaf(file)
        if leaf is None:
            continue
        facts = material.leaf_facts(leaf)
        one = Lineage(source, facts.names, facts.not_after, facts.sha256, facts.ocsp_urls)
        if source.name in found:
            text = f"{source.client} has a second lineage {source.name} in {one.directory}"
            by_hand.append(f"{text}: left alone; by hand, give it another name (stapleguard hook --name)")
        else:
            found[source.name] = one
    return [*found.values()], by_hand


def _leaf(path: str) -> x509.Certificate | None:
    """Read the first certificate of a file, which may hold a key as well."""
    data = read_bounded(Path(path))
    return None if isinstance(data, Finding) else material.leaf_in(data)


def _uses(site: Site, lineages: Sequence[Lineage]) -> Iterator[tuple[Lineage, tuple[str, ...], Mode]]:
    """Yield the lineages whose certificate a site has, by the client's own files or by copies of them."""
    leaves = {path: _leaf(path) for path in site.certificates}
    digests = {path: material.leaf_facts(leaf).sha256 for path, leaf in leaves.items() if leaf is not None}
    taken: set[str] = set()
    for lineage in lineages:
        own = {os.path.realpath(path) for path in _files(lineage.source)}
        direct = [path for path in site.certificates if os.path.realpath(path) in own]
        copies = [path for path, digest in digests.items() if digest == lineage.leaf]
        paths = tuple(path for path in dict.fromkeys([*direct, *copies]) if path not in taken)
        taken.update(paths)
        if lineage.name in site.guards and not direct:
            continue  # by our line; a copy beside it is not used
        if paths:
            yield lineage, paths, Mode.WATCH if direct else Mode.CHECK


def _older(site: Site, lineages: Sequence[Lineage]) -> Iterator[str]:
    """Tell of copies that another certificate of the same names has taken the place of at the client."""
    leaves = {path: _leaf(path) for path in site.certificates}
    facts = {path: material.leaf_facts(leaf) for path, leaf in leaves.items() if leaf is not None}
    known = {lineage.leaf for lineage in lineages} | set(site.guards)
    for path, seen in facts.items():
        same = [one for one in lineages if one.name not in known and {*one.names} == {*seen.names}]
        if seen.sha256 not in known and same:
            text = f"{path} at {site.where} is not the certificate that {same[0].name} has now"
            yield f"{text}: left alone; by hand, copy it again and run setup"


def _files(source: Renewal) -> tuple[str, ...]:
    named = (source.files.get("fullchain"), source.files.get("cert"))
    here = (
        [f"{source.directory}/{file}" for file in ("fullchain.pem", "cert.pem")] if source.directory else []
    )
    return (*here, *(one for one in named if one))


def _placed(lineage: Lineage, uses: Sequence[tuple[Mode, str]]) -> Lineage:
    modes = {mode for mode, _ in uses}
    # One block that is not guarded yet is a step that is left to take.
    mode = next((one for one in (Mode.WATCH, Mode.CHECK, Mode.GUARD) if one in modes), Mode.CHECK)
    return replace(lineage, mode=mode, served=tuple(dict.fromkeys(where for _, where in uses)))


def _change(edit: Edit, instance: Instance) -> Change:
    path = Path(edit.path)
    before = read_bounded(path) if path.exists() else None
    known = None if before is None or isinstance(before, Finding) else before
    mode = path.stat().st_mode & 0o7777 if known is not None else 0o644
    names = ", ".join(edit.lineages)
    why = edit.why or f"serve the generation of {names}: a renewal becomes one rename, and can be taken back"
    return Change(edit.path, why, known, edit.after, edit.lineages, mode, instance)


def _by_hand(left: Left, instance: Instance) -> str:
    server = SERVERS[instance.kind]
    lines = " and ".join(server.line(one.live) for one in left.wanted)
    hand = left.refusal.hand or f"in the place of its certificate lines: {lines}"
    return f"{left.where} is left alone, {left.refusal.reason}; by hand, {hand}"
