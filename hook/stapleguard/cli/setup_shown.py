"""How `setup` shows what it found, what it would change, and how the applying ended."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stapleguard import report
from stapleguard.engine.setup import Change, Found
from stapleguard.model import ExitStatus, Json, Verdict, escape

_LACKS_RESOLVER: Final = (
    "it keeps the responder's addresses of its last reload; "
    'with `[nginx] resolver = ["ADDRESS"]` in stapleguard.toml it asks again'
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the applying ended: the paths that were changed, what was said, and the verdict of each lineage."""

    applied: tuple[str, ...]
    said: tuple[str, ...]
    verdicts: Mapping[str, str]


def show(arguments: Namespace, found: Found, own: Sequence[Change], outcome: Outcome | None) -> int:
    """Print the whole and return the exit status."""
    applied = outcome.applied if outcome else ()
    proved = (Verdict.VERIFIED.value, Verdict.NOT_APPLICABLE.value)
    failed = bool(outcome and any(one not in proved for one in outcome.verdicts.values()))
    status = ExitStatus.DEGRADED if failed or (outcome and outcome.said) else ExitStatus.OK
    if arguments.json:
        report.print_json(_json(found, own, applied, outcome, int(status)))
    elif outcome is None:
        sys.stdout.write("\n".join(_lines(found, own, diffs=True)) + "\n")
    else:
        sys.stdout.write("".join(f"changed {path}\n" for path in applied))
        sys.stdout.write("".join(f"{line}\n" for line in outcome.said))
        sys.stdout.write("".join(f"{name}: {verdict}\n" for name, verdict in outcome.verdicts.items()))
        sys.stdout.write("\n".join(_lines(found, (), diffs=False)) + "\n")
    return int(status)


def _json(
    found: Found, own: Sequence[Change], applied: Sequence[str], outcome: Outcome | None, status: int
) -> dict[str, Json]:
    servers: list[Json] = [
        {
            "kind": one.instance.kind,
            "version": one.instance.version,
            "configuration": one.instance.config,
            "running": one.instance.master is not None,
            "resolvers": [*one.resolvers],
            "lacks_resolver": one.lacks_resolver,
        }
        for one in found.places
    ]
    clients: list[Json] = [
        {
            "client": one.client,
            "directory": one.directory,
            "lineages": [each.name for each in one.lineages],
            "hook": one.entry or "written by setup",
        }
        for one in found.stores
    ]
    lineages: list[Json] = [
        {
            "name": one.name,
            "directory": one.directory,
            "client": one.source.client,
            "names": [*one.names],
            "not_after": report.rfc3339(one.not_after),
            "mode": one.mode.value,
            "served_by": [*one.served],
        }
        for one in found.lineages
    ]
    changes: list[Json] = [
        {"path": one.path, "why": one.why, "diff": one.diff, "applied": one.path in applied}
        for one in (*own, *found.changes)
    ]
    return {
        "schema": "stapleguard.setup/1",
        "exit": status,
        "servers": servers,
        "lineages": lineages,
        "clients": clients,
        "resolvers": [*found.resolvers],
        "units": {**found.units},
        "changes": changes,
        "by_hand": [*found.by_hand, *(outcome.said if outcome else ())],
        "verdicts": {**outcome.verdicts} if outcome else {},
    }


def _lines(found: Found, own: Sequence[Change], *, diffs: bool) -> Iterator[str]:
    yield from _host(found)
    for lineage in found.lineages:
        names = escape(", ".join(lineage.names), 100)
        where = ", ".join(lineage.served) or "no server block"
        yield f"{lineage.mode.value:8} {lineage.name}  {names}  until {lineage.not_after:%Y-%m-%d}  {where}"
    if not found.lineages:
        yield "no certificate of an ACME client was found (docs/how-to/setup.md says where it is looked for)"
    for text in found.by_hand:
        yield f"by hand  {text}"
    changes = (*own, *found.changes)
    for change in changes if diffs else ():
        yield ""
        yield f"change   {change.path}: {change.why}"
        yield change.diff.rstrip("\n")
    yield "" if changes and diffs else "nothing is left to change"
    if changes and diffs:
        yield f"{len(changes)} files to change: `stapleguard setup --write` does it, `--undo` takes it back"


def _host(found: Found) -> Iterator[str]:
    """What is there besides lineages: servers, ACME clients, resolvers, units."""
    for place in found.places:
        one = place.instance
        state = f"runs, pid {one.master}" if one.master is not None else "does not run"
        yield f"server   {one.kind} {one.version}  {one.config}  {state}"
    for name in found.others:
        yield f"server   {name}  runs; not changed by setup"
    for store in found.stores:
        names = escape(", ".join(each.name for each in store.lineages), 100)
        hook = f"hook by hand: {store.entry}" if store.entry else "its hook entry is written by setup"
        yield f"client   {store.client}  {store.directory}  {names}  {hook}"
    yield f"resolver {', '.join(found.resolvers) or 'none in /etc/resolv.conf'}  of this host"
    for place in found.places:
        if place.resolvers:
            yield f"resolver {', '.join(place.resolvers)}  of {place.instance.kind}"
        elif place.lacks_resolver:
            yield f"resolver none  of {place.instance.kind}: {_LACKS_RESOLVER}"
    for unit, state in found.units.items():
        yield f"unit     {unit}  {state}"
    if not found.units:
        yield "unit     systemd does not run here: call `stapleguard retry` and `refresh` from cron"
