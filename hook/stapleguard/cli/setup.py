"""`setup`: what is here, the exact change for each step up, the change itself, and the way back."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stapleguard import host, report
from stapleguard.cli import _budget, _locked, _world
from stapleguard.cli import install as installer
from stapleguard.cli.telling import tell
from stapleguard.diagnosis import Result
from stapleguard.disk import StateDirectory, read_bounded, replace_file
from stapleguard.engine import setup
from stapleguard.engine.deploy import deploy
from stapleguard.engine.run import Budget
from stapleguard.engine.setup import Change, Found
from stapleguard.engine.undo import recover
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import ExitStatus, Json, UsageError, escape
from stapleguard.servers import ConfigOutcome, nginx

NOTE: Final = "setup"
"""The observation that holds what was changed, in order: path, digest after, and the copy of before."""
_GLANCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the applying ended: the paths that were changed, what was said, and the verdict of each lineage."""

    applied: tuple[str, ...]
    said: tuple[str, ...]
    verdicts: Mapping[str, str]


def setup_command(arguments: argparse.Namespace) -> int:
    """Look and show; with --write apply, with --undo take everything back."""
    if arguments.undo:
        return _undo(arguments)
    world = _world(arguments)
    found = setup.look(world)
    own = _own_files(arguments)
    if not arguments.write:
        return _show(arguments, found, own, None)
    if os.geteuid() != 0:
        raise UsageError("this writes below /etc", "run it as root")
    if not arguments.yes and not sys.stdin.isatty():
        raise UsageError("nobody can be asked here", "add --yes")
    if not arguments.json:
        _show(arguments, found, own, None)
    outcome = _apply(arguments, world, found, own)
    # What is there now is looked at again: a second run has nothing left to change.
    return _show(arguments, found if arguments.json else setup.look(world), own, outcome)


def _own_files(arguments: Namespace) -> tuple[Change, ...]:
    """Return the files that `install` would write: units, hook entry, catalogue, configuration."""
    place = installer.place_of(Namespace(**{**vars(arguments), "root": None}), None)
    wanted = [(file.path, file.text.encode(), file.mode) for file in installer.files_of(place)]
    config = "etc/stapleguard/stapleguard.toml"
    if not (place.root / config).exists():
        wanted.append((config, installer.default_configuration().encode(), 0o600))
    changes = []
    for path, after, mode in wanted:
        before = read_bounded(place.root / path)
        known = None if isinstance(before, Finding) else before
        if known != after:
            changes.append(Change(f"/{path}", _why(path), known, after, (), mode))
    return tuple(changes)


def _why(path: str) -> str:
    for part, why in (
        ("systemd/system", "run renewals, retries and alerts under systemd"),
        ("renewal-hooks", "certbot's hook entry: every renewal is deployed and proved"),
        ("/man/", "the manual page"),
        ("completion", "completion in bash"),
        ("catalog", "explain our journal records (journalctl -x)"),
        ("tmpfiles", "the state directory exists from boot on"),
    ):
        if part in path:
            return why
    return "every setting with its default"


# --- showing ---------------------------------------------------------------------------------------------


def _show(arguments: Namespace, found: Found, own: Sequence[Change], outcome: _Outcome | None) -> int:
    applied = outcome.applied if outcome else ()
    failed = bool(outcome and any(one in ("stranded", "degraded") for one in outcome.verdicts.values()))
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
    found: Found, own: Sequence[Change], applied: Sequence[str], outcome: _Outcome | None, status: int
) -> dict[str, Json]:
    servers: list[Json] = [
        {
            "kind": one.kind,
            "version": one.version,
            "configuration": one.config,
            "running": one.master is not None,
        }
        for one in found.instances
    ]
    lineages: list[Json] = [
        {
            "name": one.name,
            "directory": one.directory,
            "client": one.client,
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
        "changes": changes,
        "by_hand": [*found.by_hand, *(outcome.said if outcome else ())],
        "verdicts": {**outcome.verdicts} if outcome else {},
    }


def _lines(found: Found, own: Sequence[Change], *, diffs: bool) -> Iterator[str]:
    for one in found.instances:
        state = f"runs, pid {one.master}" if one.master is not None else "does not run"
        yield f"server   {one.kind} {one.version}  {one.config}  {state}"
    for name in found.others:
        yield f"server   {name}  runs; not changed by setup"
    for lineage in found.lineages:
        names = escape(", ".join(lineage.names), 100)
        where = ", ".join(lineage.served) or "no server block"
        yield f"{lineage.mode.value:8} {lineage.name}  {names}  until {lineage.not_after:%Y-%m-%d}  {where}"
    if not found.lineages:
        yield f"no certificate was found in {' or '.join(setup.STORES)}"
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


# --- applying --------------------------------------------------------------------------------------------


def _apply(arguments: Namespace, world: World, found: Found, own: Sequence[Change]) -> _Outcome:
    applied: list[str] = []
    said: list[str] = []
    world.state.prepare()
    if own and _agreed(arguments, f"write {len(own)} files of stapleguard itself?"):
        _keep(world.state, own)
        quiet = Namespace(**{**vars(arguments), "root": None, "program": None})
        installer.apply(quiet)
        applied += [one.path for one in own]
    verdicts: dict[str, str] = {}
    for change in found.changes:
        if not _agreed(arguments, f"change {change.path}?"):
            continue
        unfit = [name for name in change.lineages if not _published(arguments, world, found, name)]
        if unfit:
            why = f"{', '.join(unfit)} cannot be deployed (stapleguard deploy says why)"
            said.append(f"{change.path} stays: {why}")
            continue
        if problem := _edited(world, found, change):
            said.append(f"{change.path} stays as it was: {problem}")
            continue
        applied.append(change.path)
        for name in change.lineages:
            result = _deployed(world, found, name, _budget(arguments, world))
            tell(world, result)
            verdicts[name] = result.verdict.value
    return _Outcome(tuple(applied), tuple(said), verdicts)


def _agreed(arguments: Namespace, question: str) -> bool:
    if arguments.yes:
        return True
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _published(arguments: Namespace, world: World, found: Found, name: str) -> bool:
    """Whether there is a generation that an include can lead to; the first deployment makes one.

    What the server serves at that moment is not ours yet, so little time is spent on looking at it.
    """
    if not world.state.live(name):
        _deployed(world, found, name, replace(_budget(arguments, world), prove=_GLANCE))
    return bool(world.state.live(name))


def _deployed(world: World, found: Found, name: str, budget: Budget) -> Result:
    source = next(one.directory for one in found.lineages if one.name == name)
    with _locked(world):
        recover(world, budget)
        world.state.take(name)
        return deploy(world, name, world.config.lineage(name).sources or (source,), budget)


def _edited(world: World, found: Found, change: Change) -> str:
    """Change one file of a server, have the server test it, and put it back when it is refused."""
    now = read_bounded(Path(change.path))
    if now != change.before:
        return "it was changed meanwhile"
    _keep(world.state, [change])
    _write(Path(change.path), change.after, change.mode)
    for instance in found.instances:
        tested = nginx.test(instance, world.config.test_timeout)
        if tested.outcome is not ConfigOutcome.ACCEPTED:
            _restore(world.state, [change.path])
            return f"{instance.kind} refuses it: {(*tested.refusals, tested.text.strip())[0]}"
    for instance in found.instances:
        if instance.master is not None:
            nginx.reload(instance, world.config.test_timeout)
    return ""


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file and keep its owner."""
    owner = path.stat() if path.exists() else None
    replace_file(path, data, mode)
    if owner is not None:
        os.chown(path, owner.st_uid, owner.st_gid)


# --- the way back ----------------------------------------------------------------------------------------


def _keep(state: StateDirectory, changes: Sequence[Change]) -> None:
    """Keep a copy of each file before it is changed; what was there before the first change counts."""
    folder = state.root / "setup"
    folder.mkdir(mode=0o700, exist_ok=True)
    noted = dict(state.observation(NOTE))
    for change in changes:
        known = noted.get(change.path)
        copy = hashlib.sha256(change.path.encode()).hexdigest()[:32]
        if isinstance(known, dict) and change.before and _digest(change.before) == known.get("after"):
            was: Json = known.get("copy")  # ours on top of ours: what a person had is below both
        else:
            was = copy if change.before is not None else None
            if change.before is not None:
                replace_file(folder / copy, change.before)
        noted[change.path] = {"copy": was, "after": _digest(change.after), "mode": change.mode}
    state.observe(NOTE, noted)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _restore(state: StateDirectory, paths: Sequence[str]) -> list[str]:
    """Put files back as they were; one that a person has changed since is left alone."""
    noted = dict(state.observation(NOTE))
    said: list[str] = []
    for path in paths:
        known = noted.get(path)
        if not isinstance(known, dict):
            continue
        target, copy = Path(path), known.get("copy")
        now = read_bounded(target)
        if not isinstance(now, Finding) and _digest(now) != known.get("after"):
            said.append(
                f"{path} was changed since: it stays, what it was before is in {state.root / 'setup'}"
            )
            continue
        if isinstance(copy, str):
            before, mode = (state.root / "setup" / copy).read_bytes(), known.get("mode")
            _write(target, before, mode if isinstance(mode, int) else 0o644)
            said.append(f"restored {path}")
        elif not isinstance(now, Finding):
            target.unlink()
            said.append(f"removed {path}")
        del noted[path]
    state.observe(NOTE, noted)
    return said


def _undo(arguments: Namespace) -> int:
    """Take back everything that `setup --write` has done: servers first, so that nothing they use goes."""
    world = _world(arguments)
    paths = [*world.state.observation(NOTE)]
    ours = {f"/{path}" for path in world.state.observation(installer.NOTE)}
    servers = [path for path in paths if path not in ours and not path.startswith("/etc/stapleguard/")]
    said = _restore(world.state, servers)
    instances = nginx.instances(world.config.nginx_binary or None, world.config.nginx_config or None)
    for instance in instances if said else ():
        if instance.master is not None:
            nginx.reload(instance, world.config.test_timeout)
    rest = [path for path in paths if path not in servers]
    if rest:
        said += installer.deactivate()
        said += _restore(world.state, rest)
        world.state.observe(installer.NOTE, {})
        if host.booted():
            host.systemctl("daemon-reload", timeout=60.0)
    if arguments.json:
        report.print_json({"schema": "stapleguard.setup/1", "exit": 0, "undone": [*said]})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in said or ["nothing to undo"]))
    return int(ExitStatus.OK)
