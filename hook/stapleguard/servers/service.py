"""Servers that systemd runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from stapleguard import host

_SECONDS: Final = 10.0


def unit_of_main(pid: int) -> str | None:
    """Name the systemd service whose main process this is; None where it is none, or systemd is not there."""
    unit = host.unit_of(pid)
    if unit is None:
        return None
    asked = host.run(["systemctl", "show", "--property=MainPID", "--value", unit], _SECONDS)
    return unit if asked.stdout.strip() == str(pid) else None


def is_ours(path: str) -> bool:
    """Whether only root or we can have written a file: what it says may then be acted on.

    Whoever runs a process chooses its arguments; a server that gave up root is known by its files.
    """
    try:
        seen = Path(path).stat()
    except OSError:
        return False
    return seen.st_uid in {0, os.geteuid()} and not seen.st_mode & 0o022
