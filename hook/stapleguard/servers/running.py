"""Which processes are servers that we may act on, and which of the installations are meant."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from stapleguard import host
from stapleguard.host import Process
from stapleguard.servers.words import Instance

UNDERSTUDY: Final = "stapleguard-understudy-"
"""What the directory of an understudy's configuration begins with: for its moment it is nobody's server."""


def heads(programs: frozenset[str]) -> list[Process]:
    """Find the processes of these programs that none of them started, outside of containers."""
    found = host.named(programs)
    family = {one.pid for one in found}
    return [one for one in found if one.parent not in family and one.argv and host.shares_root(one.pid)]


def masters(programs: frozenset[str]) -> list[Process]:
    """Find the heads that root or we started: whoever starts a process chooses what we would execute."""
    return [one for one in heads(programs) if one.uid in ours()]


def ours() -> frozenset[int]:
    """Return the users whose processes and files we act on: root, and ourselves."""
    return frozenset({0, os.geteuid()})


def is_ours(path: str) -> bool:
    """Whether only root or we can have written a file: what it says may then be acted on.

    Whoever runs a process chooses its arguments; a server that gave up root is known by its files.
    """
    try:
        seen = Path(path).stat()
    except OSError:
        return False
    return seen.st_uid in ours() and not seen.st_mode & 0o022


def program(one: Process) -> str:
    """Name the program of a process; '' for one that has ended and was not waited for yet."""
    return (one.executable or one.argv[0]).rpartition("/")[2] if one.argv else ""


def meant(
    running: Sequence[Instance], binary: str | None = None, config: str | None = None
) -> tuple[Instance, ...]:
    """Choose by the main file of the configuration, and by the program where one is named."""
    real = [one for one in running if not Path(one.config).parent.name.startswith(UNDERSTUDY)]
    found = [one for one in real if config is None or _same(one.config, config)]
    if binary is None:
        return tuple(found)
    of_binary = [one for one in found if _same(one.binary, binary)]
    # A configuration says which installation is meant; the path of its program may be a wrapper.
    return tuple(of_binary or (found if config is not None else ()))


def installed(
    kind: str, binary: str | None, config: str | None, usual: str, version: Callable[[str], str]
) -> tuple[Instance, ...]:
    """Find the program where none of its processes runs; `usual` is the configuration that it reads alone."""
    found = shutil.which(binary or kind, path=host.PATH)
    named = config or usual
    if found is None or (config is None and not Path(named).exists()):
        return ()
    return (Instance(kind, found, named, ("-f", named), version(found), None),)


def _same(left: str, right: str) -> bool:
    return os.path.realpath(left) == os.path.realpath(right)
