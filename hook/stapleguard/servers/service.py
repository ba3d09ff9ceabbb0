"""Servers that systemd runs."""

from __future__ import annotations

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
