"""`doctor`: what to look at, and how the diagnosis is told."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from stapleguard import inventory, report
from stapleguard.diagnosis import Result
from stapleguard.disk import replace_file
from stapleguard.engine.doctor import doctor_lineage, doctor_place, together
from stapleguard.engine.upkeep import standing_sources_of
from stapleguard.engine.world import World
from stapleguard.model import UsageError, escape
from stapleguard.report import diagnosis

TIMEOUT: Final = 6.0


def doctor(arguments: argparse.Namespace, world: World) -> int:
    """Diagnose what was asked for; return the exit status."""
    target = _bundle(arguments)
    if arguments.json or not sys.stderr.isatty():
        world = replace(world, listener=lambda _step: None)
    result = _looked(arguments, world)
    if target is not None:
        replace_file(target, diagnosis.bundle(result, world.clock.now()).encode())
    if arguments.json:
        report.print_json(report.as_json(result))
    else:
        sys.stdout.write(diagnosis.as_text(result, sys.stdout) + "\n")
    return int(result.status)


def _looked(arguments: argparse.Namespace, world: World) -> Result:
    timeout = arguments.timeout or TIMEOUT
    known = {*world.state.lineages(), *world.config.lineages}
    what: str | None = arguments.what
    if what is not None and what not in known:
        if ":" not in what:
            raise UsageError(
                f"neither a deployed lineage nor HOST:PORT: {escape(what)}",
                "run `stapleguard status` to see what is deployed",
            )
        name = inventory.server_name(arguments.sni) if arguments.sni else ""
        place = replace(inventory.place(what), server_name=name, addresses=tuple(arguments.address))
        return doctor_place(world, place, timeout)
    names = sorted(known) if what is None else [what]
    if not names:
        raise UsageError(
            "nothing to look at: no lineage is deployed or configured",
            "name an endpoint, such as example.org:443",
        )
    return together([doctor_lineage(world, one, standing_sources_of(world, one), timeout) for one in names])


def _bundle(arguments: argparse.Namespace) -> Path | None:
    if arguments.bundle is None:
        return None
    path = Path(os.path.abspath(arguments.bundle))  # noqa: PTH100 - a link stays the user's
    if not path.parent.is_dir():
        raise UsageError(f"no such directory: {escape(str(path.parent))}", "give a file in one that exists")
    return path
