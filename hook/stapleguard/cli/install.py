"""`install` and `uninstall`: units, certbot's hook entry, catalogue, configuration, state directory."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stapleguard import host, report
from stapleguard.cli import completion, manual
from stapleguard.config import SCHEMA, Config
from stapleguard.disk import StateDirectory, read_bounded, replace_file
from stapleguard.finding import Finding
from stapleguard.model import ExitStatus, Json, UsageError
from stapleguard.units import RETRY_TIMER

NOTE: Final = "installed"
"""The observation that holds the digest of each file as `install` wrote it."""
_PACKAGED: Final = "/usr/bin/stapleguard"
_RECOVER: Final = "stapleguard-recover.service"
_HOOK: Final = "etc/letsencrypt/renewal-hooks/deploy/stapleguard"
_CONFIG: Final = "etc/stapleguard/stapleguard.toml"
_SAVED: Final = ".stapleguard-saved"


@dataclass(frozen=True, slots=True)
class Place:
    """Where things go: the host itself, or a packager's tree."""

    root: Path
    units: str
    catalogue: str
    tmpfiles: str
    program: str
    state: StateDirectory


@dataclass(frozen=True, slots=True)
class _File:
    """One file that is ours: its path below the root, its text and mode."""

    path: str
    text: str
    mode: int = 0o644


def install(arguments: argparse.Namespace) -> int:
    """Write what is not there yet; a file that a person changed is kept beside ours."""
    return _told(arguments, apply(arguments))


def apply(arguments: argparse.Namespace) -> list[str]:
    """Do what `install` does and return what was done."""
    place = place_of(arguments, arguments.program)
    done: list[str] = []
    place.state.prepare()
    noted = dict(place.state.observation(NOTE))
    for file in files_of(place):
        done += _write(place, file, noted)
    config = place.root / _CONFIG
    if not config.exists():
        _make_parent(config)
        replace_file(config, default_configuration().encode())
        done.append(f"written {config}")
    if arguments.root is None:
        place.state.observe(NOTE, noted)
        done += _activate() if done else []
    return done


def uninstall(arguments: argparse.Namespace) -> int:
    """Remove what `install` wrote; staple files go first, for nobody would renew them (promise I11)."""
    place = place_of(arguments, None)
    noted = place.state.observation(NOTE)
    done = [*_withdraw(arguments), *deactivate()] if arguments.root is None else []
    ours = {file.path: _digest(file.text.encode()) for file in files_of(place)}
    removed: list[str] = []
    for path in {**ours, **noted}:
        target = place.root / path
        found = read_bounded(target)
        if isinstance(found, Finding):
            continue
        if _digest(found) not in (ours.get(path), noted.get(path)):
            removed.append(f"{target} was changed: it is kept as {_save(target)}")
        target.unlink()
        removed.append(f"removed {target}")
    if arguments.root is None and removed:
        if noted:
            place.state.observe(NOTE, {})
        if host.booted():
            host.systemctl("daemon-reload", timeout=60.0)
            host.run(["journalctl", "--update-catalog"], 30.0)
    return _told(arguments, [*done, *removed])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def place_of(arguments: argparse.Namespace, program: str | None) -> Place:
    """Say where things go."""
    state = Path(os.path.abspath(arguments.state_dir))  # noqa: PTH100 - links in it are the user's choice
    if arguments.root is None:
        if os.geteuid() != 0:
            raise UsageError("this writes below /etc", "run it as root, or give --root DIR")
        own = program or _this_program()
        # journald reads no catalogue below /etc.
        catalogue = "usr/local/lib/systemd/catalog"
        return Place(Path("/"), "etc/systemd/system", catalogue, "etc/tmpfiles.d", own, StateDirectory(state))
    root = Path(os.path.abspath(arguments.root))  # noqa: PTH100 - links in it are the user's choice
    inside = StateDirectory(root / state.relative_to("/"))
    library = "usr/lib/systemd"
    return Place(
        root, f"{library}/system", f"{library}/catalog", "usr/lib/tmpfiles.d", program or _PACKAGED, inside
    )


def _this_program() -> str:
    """The absolute path of the command that runs now, as a unit can start it."""
    called = Path(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - /usr/bin/stapleguard may be a link that moves
    if called.name == "stapleguard" and os.access(called, os.X_OK):
        return str(called)
    found = shutil.which("stapleguard", path=f"{Path(sys.executable).parent}:{host.PATH}")
    if found is None:
        raise UsageError("there is no command stapleguard to start", "give its path with --program")
    return found


def sources() -> Path:
    """The directory of unit files: beside the source in a checkout, else where the wheel put it."""
    checkout = Path(__file__).resolve().parents[3] / "systemd"
    for candidate in (checkout, Path(sys.prefix) / "share/stapleguard/systemd"):
        if (candidate / RETRY_TIMER).is_file():
            return candidate
    raise UsageError("the unit files are missing from this installation", "install the package again")


def files_of(place: Place) -> Iterator[_File]:
    """Yield every file that is ours."""
    if any(char.isspace() or char in "%\\\"'$" for char in place.program):
        raise UsageError(f"a unit cannot start {place.program!r}", "install it under a plain path")
    for source in sorted(sources().iterdir()):
        text = source.read_text("utf-8").replace(_PACKAGED, place.program)
        match source.suffix:
            case ".service" | ".timer":
                yield _File(f"{place.units}/{source.name}", text)
            case ".catalog":
                yield _File(f"{place.catalogue}/{source.name}", text)
            case ".tmpfiles":
                yield _File(f"{place.tmpfiles}/stapleguard.conf", text)
            case _:
                continue
    # What a package brings is below /usr/share; /usr/local is the administrator's.
    local = place.root == Path("/")
    share = "usr/local/share" if local else "usr/share"
    functions = "site-functions" if local else "vendor-completions"
    yield _File(f"{share}/man/man1/stapleguard.1", manual.page())
    yield _File(f"{share}/bash-completion/completions/stapleguard", completion.bash())
    yield _File(f"{share}/zsh/{functions}/_stapleguard", completion.zsh())
    yield _File(f"{share}/fish/vendor_completions.d/stapleguard.fish", completion.fish())
    certbot = place.root / "etc/letsencrypt"
    if place.root != Path("/") or certbot.is_dir() or shutil.which("certbot", path=host.PATH):
        about = "# certbot runs this after each renewal (certbot manual, --deploy-hook)."
        yield _File(_HOOK, f"#!/bin/sh\n{about}\nexec {place.program} hook\n", 0o755)


def default_configuration() -> str:
    """Every key with its default, commented out."""
    defaults, table = Config(), ""
    lines = ["# stapleguard: every key has a default, and each default is shown here."]
    for key, about in SCHEMA.items():
        own, _, name = key.rpartition(".")
        if own != table:
            table = own
            lines += ["", f"# [{table}]"]
        lines += [f"# {about.about}", f"# {name} = {_toml(getattr(defaults, about.attribute))}"]
    lines += ["", "# Alert channels are tables of their own: docs/how-to/alerts.md."]
    lines += ["", "# One table for each lineage that needs one:", '# [lineage."example.org"]']
    lines += ['# sources = ["/etc/letsencrypt/live/example.org"]', '# endpoints = ["www.example.org:443"]']
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    match value:
        case None | "":
            return "...   not set"
        case float():
            return f"{value:g}"
        case int():
            return str(value)
        case tuple():
            return "[]"
        case str():
            return f'"{value}"'
        case _:
            return f'"{getattr(value, "value", "")}"'


def _write(place: Place, file: _File, noted: dict[str, Json]) -> list[str]:
    target, data = place.root / file.path, file.text.encode()
    digest = _digest(data)
    said: list[str] = []
    found = read_bounded(target)
    if not isinstance(found, Finding):
        there = _digest(found)
        if there == digest and target.stat().st_mode & 0o777 == file.mode:
            noted[file.path] = digest
            return []
        if there not in (digest, noted.get(file.path)):
            said.append(f"{target} was changed: it is kept as {_save(target)}")
    _make_parent(target)
    replace_file(target, data)
    target.chmod(file.mode)
    noted[file.path] = digest
    return [*said, f"written {target}"]


def _make_parent(target: Path) -> None:
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {target.parent}: {error.strerror}", "run it as root") from None


def _save(target: Path) -> Path:
    number = 1
    while (saved := target.with_name(f"{target.name}{_SAVED}{number}")).exists():
        number += 1
    shutil.copy2(target, saved)
    # certbot runs every executable of its directory, and systemd reads no such suffix.
    saved.chmod(saved.stat().st_mode & 0o666)
    return saved


def _activate() -> list[str]:
    if not host.booted():
        return ["systemd is not running here: nothing was enabled or started"]
    said: list[str] = []
    host.run(["journalctl", "--update-catalog"], 30.0)
    for words in (("daemon-reload",), ("enable", "--now", RETRY_TIMER), ("enable", _RECOVER)):
        done = host.systemctl(*words, timeout=60.0)
        if done.status != 0:
            raise UsageError(f"systemctl {' '.join(words)}: {done.stderr.strip()}", "see journalctl -b")
        said.append(f"systemctl {' '.join(words)}")
    return said


def deactivate() -> list[str]:
    """Stop what was started; return what was done."""
    if not host.booted():
        return []
    done = host.systemctl("disable", "--now", RETRY_TIMER, _RECOVER, timeout=60.0)
    return [f"systemctl disable --now {RETRY_TIMER} {_RECOVER}"] if done.status == 0 else []


def _withdraw(arguments: argparse.Namespace) -> list[str]:
    from stapleguard.cli.service import withdraw_all

    return [f"the staple file of {name} is withdrawn: {verdict}" for name, verdict in withdraw_all(arguments)]


def _told(arguments: argparse.Namespace, done: list[str]) -> int:
    if arguments.json:
        document: Mapping[str, Json] = {
            "schema": f"stapleguard.{arguments.command}/1",
            "exit": 0,
            "done": [*done],
        }
        report.print_json(document)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in done or ["nothing to do"]))
    return int(ExitStatus.OK)
