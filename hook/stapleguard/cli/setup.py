"""`setup`: what is here, the exact change for each step up, the change itself, and the way back."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from stapleguard import host, report
from stapleguard.cli import _budget, _locked, _world
from stapleguard.cli import install as installer
from stapleguard.cli.setup_shown import Outcome, show
from stapleguard.cli.telling import tell
from stapleguard.clients import links
from stapleguard.diagnosis import Result
from stapleguard.disk import BrokenGeneration, StateDirectory, read_bounded, replace_file
from stapleguard.engine import setup
from stapleguard.engine.acts import FATAL_FAULTS
from stapleguard.engine.deploy import deploy
from stapleguard.engine.run import Budget
from stapleguard.engine.setup import Change, Found
from stapleguard.engine.undo import recover
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import ExitStatus, Json, UsageError
from stapleguard.servers import SERVERS, ConfigOutcome, Instance
from stapleguard.servers.edit import Link

NOTE: Final = "setup"
"""The observation that holds what was changed, in order: path, digest after, and the copy of before."""
_GLANCE: Final = 0.5


def setup_command(arguments: argparse.Namespace) -> int:
    """Look and show; with --write apply, with --undo take everything back."""
    if arguments.undo:
        return _undo(arguments)
    world = _world(arguments)
    found = setup.look(world)
    own = _own_files(arguments)
    if not arguments.write:
        return show(arguments, found, own, None)
    if os.geteuid() != 0:
        raise UsageError("this writes below /etc", "run it as root")
    if not arguments.yes and not sys.stdin.isatty():
        raise UsageError("nobody can be asked here", "add --yes")
    if not arguments.json:
        show(arguments, found, own, None)
    outcome = _apply(arguments, world, found, own)
    # What is there now is looked at again: a second run has nothing left to change.
    return show(arguments, found if arguments.json else setup.look(world), own, outcome)


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


# --- applying --------------------------------------------------------------------------------------------


def _apply(arguments: Namespace, world: World, found: Found, own: Sequence[Change]) -> Outcome:
    applied: list[str] = []
    said: list[str] = []
    world.state.prepare()
    if own and _agreed(arguments, f"write {len(own)} files of stapleguard itself?"):
        _keep(world.state, own)
        quiet = Namespace(**{**vars(arguments), "root": None, "program": None})
        installer.apply(quiet)
        applied += [one.path for one in own]
    touched: set[tuple[str, str]] = set()
    names: list[str] = []
    for change in found.changes:
        if not _agreed(arguments, f"change {change.path}?"):
            continue
        unfit = [name for name in change.lineages if not _published(arguments, world, found, name)]
        if unfit:
            why = f"{', '.join(unfit)} cannot be deployed (stapleguard deploy says why)"
            said.append(f"{change.path} stays: {why}")
            continue
        if problem := _edited(world, change):
            said.append(f"{change.path} stays as it was: {problem}")
            continue
        applied.append(change.path)
        names += change.lineages
        if change.instance is not None and change.lineages:
            touched.add((change.instance.kind, change.instance.config))
    # Every server has its line before anything is proved: a lineage may be that of several.
    said += _reload(world, [one for one in setup.instances(world) if (one.kind, one.config) in touched])
    return Outcome(tuple(applied), tuple(said), _proved(arguments, world, found, names))


def _proved(arguments: Namespace, world: World, found: Found, names: Sequence[str]) -> dict[str, str]:
    verdicts: dict[str, str] = {}
    for name in dict.fromkeys(names):
        result = _deployed(world, found, name, _budget(arguments, world))
        tell(world, result)
        verdicts[name] = result.verdict.value
    return verdicts


def _agreed(arguments: Namespace, question: str) -> bool:
    if arguments.yes:
        return True
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _published(arguments: Namespace, world: World, found: Found, name: str) -> bool:
    """Whether there is a whole generation that an include can lead to; a deployment makes one.

    What the server serves before its line is ours is not proved for long. A generation is not whole when
    certbot's plugin has written into its include: without its own lines a server would then not start.
    """
    if not _whole(world, name):
        budget = _budget(arguments, world)
        _deployed(world, found, name, budget if world.state.live(name) else replace(budget, prove=_GLANCE))
    return _whole(world, name)


def _whole(world: World, name: str) -> bool:
    live = world.state.live(name)
    try:
        return bool(live) and world.state.load(name, live) is not None
    except BrokenGeneration:
        return False


def _deployed(world: World, found: Found, name: str, budget: Budget) -> Result:
    renewal = next(one.source for one in found.lineages if one.name == name)
    with _locked(world):
        source = links.directory(world.state, renewal)
        recover(world, budget)
        world.state.take(name)
        return deploy(world, name, world.config.lineage(name).sources or (source,), budget)


def _edited(world: World, change: Change) -> str:
    """Change one file of a server, have the server test it, and put it back when it is refused."""
    path, instance = Path(change.path), change.instance
    if _content(path) != change.before:
        return "it was changed meanwhile"
    _keep(world.state, [change])
    _write(path, change.after, change.mode)
    if instance is not None and (problem := _refused(world, instance)):
        _restore(world.state, [change.path])
        return f"{instance.kind} refuses it: {problem}"
    return ""


def _refused(world: World, instance: Instance) -> str:
    """Say why a server does not take its configuration, or would not start with it again; '' when it does."""
    server = SERVERS[instance.kind]
    tested = server.test(instance, world.config.test_timeout)
    if tested.outcome is not ConfigOutcome.ACCEPTED:
        return (*tested.refusals, tested.text.strip())[0]
    faults = server.faults(instance, server.sites(instance, str(world.state.root)))
    return next((one.message for one in faults if one.code in FATAL_FAULTS), "")


def _reload(world: World, instances: Sequence[Instance]) -> list[str]:
    """Have those that run load their configuration; say of each that could not be asked why."""
    said: list[str] = []
    for instance in instances:
        if instance.master is None:
            continue
        done = SERVERS[instance.kind].reload(instance, world.config.test_timeout)
        if done.status != 0:
            why = (done.stderr or done.stdout).strip() or f"status {done.status}"
            said.append(f"{instance.kind} was not reloaded: {why}")
    return said


def _content(path: Path) -> bytes | None:
    found = read_bounded(path)
    return None if isinstance(found, Finding) else found


def _write(path: Path, data: bytes | Link, mode: int) -> None:
    """Replace a file and keep its owner, or make a link."""
    if isinstance(data, Link):
        path.symlink_to(data.target)
        return
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
        ours = isinstance(known, dict) and change.before is not None and _is_ours(change, known)
        if isinstance(known, dict) and ours:
            was: Json = known.get("copy")  # ours on top of ours: what a person had is below both
        else:
            was = copy if change.before is not None else None
            if change.before is not None:
                replace_file(folder / copy, change.before)
        noted[change.path] = {
            "copy": was,
            "after": _digest(change.after),
            "words": _words(change.after),
            "mode": change.mode,
        }
    state.observe(NOTE, noted)


def _is_ours(change: Change, known: Mapping[str, Json]) -> bool:
    """Whether a file is as we left it, or will be again: a plugin of certbot may have added its lines."""
    before = change.before or b""
    return _digest(before) == known.get("after") or _words(change.after) == known.get("words")


def _words(data: bytes | Link) -> str:
    """Digest of a file but for its blanks: certbot's plugins leave some behind."""
    return _digest(b" ".join(data.split()) if isinstance(data, bytes) else data)


def _digest(data: bytes | Link) -> str:
    return f"-> {data.target}" if isinstance(data, Link) else hashlib.sha256(data).hexdigest()


def _there(path: Path, noted: object) -> str | None:
    """Digest of what is at a path now, of the kind that was noted; None for nothing."""
    if isinstance(noted, str) and noted.startswith("-> ") and path.is_symlink():
        return _digest(Link(str(path.readlink())))
    now = _content(path)
    return None if now is None else _digest(now)


def _restore(state: StateDirectory, paths: Sequence[str]) -> list[str]:
    """Put files back as they were; one that a person has changed since is left alone."""
    noted = dict(state.observation(NOTE))
    said: list[str] = []
    for path in paths:
        known = noted.get(path)
        if not isinstance(known, dict):
            continue
        target, copy = Path(path), known.get("copy")
        now = _there(target, known.get("after"))
        if now is not None and now != known.get("after"):
            said.append(
                f"{path} was changed since: it stays, what it was before is in {state.root / 'setup'}"
            )
            continue
        if isinstance(copy, str):
            before, mode = (state.root / "setup" / copy).read_bytes(), known.get("mode")
            _write(target, before, mode if isinstance(mode, int) else 0o644)
            said.append(f"restored {path}")
        elif now is not None:
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
    if said:
        said += _reload(world, setup.instances(world))
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
