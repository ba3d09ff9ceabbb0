"""The system manager, spoken to by its own commands (systemctl(1))."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stapleguard.host.commands import Completed, run

_BOOTED: Final = Path("/run/systemd/system")
_SECONDS: Final = 10.0


def booted() -> bool:
    """Whether systemd is PID 1 here (sd_booted(3))."""
    return _BOOTED.is_dir()


def start(unit: str) -> Completed:
    """Enqueue the start of a unit and return at once; the status is not 0 where there is no such unit."""
    return systemctl("start", "--no-block", "--", unit)


def systemctl(*words: str, timeout: float = _SECONDS) -> Completed:
    """Run systemctl, which asks no password and uses no pager."""
    return run(["systemctl", "--no-ask-password", "--no-pager", *words], timeout)


def properties(unit: str, names: Sequence[str]) -> dict[str, str]:
    """Read properties of a unit; empty where systemd does not answer."""
    done = systemctl("show", f"--property={','.join(names)}", "--", unit)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
