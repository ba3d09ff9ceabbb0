"""What is on this host, how far each lineage is looked after, and the exact change for a step up."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import crossplane
from cryptography import x509

from stapleguard import host, material
from stapleguard.disk import read_bounded
from stapleguard.engine.survey import Mode
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.servers import Instance, Site, nginx
from stapleguard.servers.nginx_config import INCLUDE_NAME
from stapleguard.servers.nginx_edit import Refusal, Statement, use_include

STORES: Final[Mapping[str, str]] = {
    "/etc/letsencrypt/live": "certbot",
    "/var/lib/dehydrated/certs": "dehydrated",
}
"""Where lineages are looked for: directories with certbot's names of files."""
_OTHERS: Final = ("apache2", "httpd", "haproxy", "lighttpd", "caddy", "hitch", "h2o")


@dataclass(frozen=True, slots=True)
class Lineage:
    """One lineage of an ACME client; `served` names the server blocks that use it."""

    name: str
    directory: str
    client: str
    names: tuple[str, ...]
    not_after: datetime
    mode: Mode = Mode.CHECK
    served: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One file before and after; `before` is None where there is none yet."""

    path: str
    why: str
    before: bytes | None
    after: bytes
    lineages: tuple[str, ...] = ()
    mode: int = 0o644

    @property
    def diff(self) -> str:
        """The change as a unified diff."""
        old = (self.before or b"").decode("utf-8", "replace").splitlines(keepends=True)
        new = self.after.decode("utf-8", "replace").splitlines(keepends=True)
        source = self.path if self.before is not None else "/dev/null"
        lines = (
            one if one.endswith("\n") else f"{one}\n"
            for one in difflib.unified_diff(old, new, source, self.path)
        )
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Found:
    """What the host has; `by_hand` is what a person must do where nothing is changed, and why."""

    instances: tuple[Instance, ...]
    others: tuple[str, ...]
    lineages: tuple[Lineage, ...]
    changes: tuple[Change, ...]
    by_hand: tuple[str, ...] = field(default=())


def look(world: World) -> Found:
    """Look at servers, lineages and which server block uses which; plan the step from watch to guard."""
    instances = nginx.instances(world.config.nginx_binary or None, world.config.nginx_config or None)
    lineages = _lineages()
    sites = [site for one in instances for site in nginx.sites(one, str(world.state.root))]
    lineages = tuple(_placed(one, sites) for one in lineages)
    changes: list[Change] = []
    by_hand: list[str] = []
    wanted: dict[str, list[tuple[Site, Lineage]]] = {}
    for lineage in lineages:
        for site in _watched(lineage, sites):
            # sites-enabled holds links: what they lead to is changed.
            file = os.path.realpath(site.where.rpartition(":")[0])
            wanted.setdefault(file, []).append((site, lineage))
    for path, pairs in wanted.items():
        change, reasons = _edit(world, path, pairs)
        changes += [change] if change is not None else []
        by_hand += reasons
    others = tuple(one for one in _OTHERS if host.named(frozenset({one})))
    by_hand += [f"{one} runs here; setup does not change its configuration" for one in others]
    return Found(instances, others, lineages, tuple(changes), tuple(by_hand))


def _lineages() -> tuple[Lineage, ...]:
    found: list[Lineage] = []
    for store, client in STORES.items():
        folder = Path(store)
        for directory in sorted(folder.iterdir()) if folder.is_dir() else ():
            data = read_bounded(directory / "cert.pem")
            if isinstance(data, Finding):
                continue
            try:
                facts = material.leaf_facts(x509.load_pem_x509_certificate(data))
            except ValueError:
                continue
            found.append(Lineage(directory.name, str(directory), client, facts.names, facts.not_after))
    return tuple(found)


def _placed(lineage: Lineage, sites: Sequence[Site]) -> Lineage:
    guarded = [one.where for one in sites if lineage.name in one.guards]
    watched = [one.where for one in _watched(lineage, sites)]
    mode = Mode.WATCH if watched else Mode.GUARD if guarded else Mode.CHECK
    return replace(lineage, mode=mode, served=(*guarded, *watched))


def _watched(lineage: Lineage, sites: Sequence[Site]) -> list[Site]:
    real = {os.path.realpath(f"{lineage.directory}/{file}") for file in ("fullchain.pem", "cert.pem")}
    return [one for one in sites if any(os.path.realpath(path) in real for path in one.certificates)]


def _edit(world: World, path: str, pairs: Sequence[tuple[Site, Lineage]]) -> tuple[Change | None, list[str]]:
    """Change every server block of one file that is understood; say of the others what a person must do."""
    data = read_bounded(Path(path))
    if isinstance(data, Finding):
        return None, [data.message]
    blocks = _blocks(path)
    text, reasons, done = data.decode("utf-8", "surrogateescape"), [], []
    # From the bottom up: the lines of a block above stay where they were.
    for site, lineage in sorted(pairs, key=lambda pair: -int(pair[0].where.rpartition(":")[2])):
        include = f"{world.state.live_path(lineage.name)}/{INCLUDE_NAME}"
        statements = blocks.get(int(site.where.rpartition(":")[2]))
        changed = (
            Refusal("it is not understood") if statements is None else use_include(text, statements, include)
        )
        if isinstance(changed, Refusal):
            line = f"in the place of its certificate lines: include {include};"
            reasons.append(f"{site.where} is left alone, {changed.reason}; by hand, {line}")
        else:
            text = changed
            done.append(lineage.name)
    if not done:
        return None, reasons
    names = tuple(sorted(set(done)))
    why = f"serve the generation of {', '.join(names)}: a renewal becomes one rename, and can be taken back"
    mode = Path(path).stat().st_mode & 0o7777
    return Change(path, why, data, text.encode("utf-8", "surrogateescape"), names, mode), reasons


def _blocks(path: str) -> dict[int, tuple[Statement, ...]]:
    """Return what stands in each server block of a file itself, by the line of the block."""
    payload = crossplane.parse(
        path, single=True, catch_errors=True, strict=False, check_ctx=False, check_args=False
    )
    found: dict[int, tuple[Statement, ...]] = {}
    # A file of sites-enabled begins with the server blocks, nginx.conf has them in its http block.
    waiting = [one for file in payload["config"] for one in file["parsed"]]
    while waiting:
        one = waiting.pop()
        inner = one.get("block", [])
        if one["directive"] == "server":
            found[one["line"]] = tuple(
                Statement(each["directive"], each["line"], tuple(each["args"])) for each in inner
            )
        waiting += inner
    return found
